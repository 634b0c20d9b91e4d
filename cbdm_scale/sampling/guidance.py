"""Guidance turns a network into another network with the same call.

Shapes: N = batch. A strength omega is one number, or one an image: (N,).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Process
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.sampling.options import GuidanceMode

Omega = float | Tensor
"""Strength of guidance: a number for all images, 0 being none, or one an image, (N,)."""


@dataclass(frozen=True)
class GuidanceInterval:
    """Noise levels at which guidance acts (Kynkäänniemi et al., 2024): low <= t / T <= high.

    Under EDM t / T is the share of training with less noise.
    """

    process: Process
    low: float = 0.0
    high: float = 1.0

    @property
    def is_everything(self) -> bool:
        """Whether it holds at all levels."""
        return self.low <= 0 and self.high >= 1

    def holds(self, level: Tensor) -> Tensor:
        """Levels as the network is given them, (N,) -> (N,) bool."""
        share = self.process.relative(level)
        return (share >= self.low) & (share <= self.high)


@dataclass(frozen=True)
class Guided:
    """A network that is pushed away from a weaker prediction: a ``denoiser.Net``.

    Classifier-free guidance (Ho & Salimans, 2022): away from the unconditional prediction,

        (1 + omega) e - omega e_null

    by one forward of twice the batch. Autoguidance (Karras et al., 2024, Section 3): away from
    that of a worse network of the same process, which is smaller, of less training or of a
    shorter average,

        e + omega (e - e_weak)

    both with the label: what the worse network lacks is added, not what the label adds, so the
    images of a class keep their variety. Papers that write w = 1 for no guidance use
    w = 1 + omega. Images whose level lies outside the interval are not guided; samplers, whose
    images share a level, save the second prediction there (``at_level``).
    """

    net: Net
    strength: Omega
    null_label: int
    interval: GuidanceInterval | None
    """None: all levels."""
    weak: Net | None = None
    """The network to move away from; None: ``net`` without a label."""

    def at_level(self, level: Tensor) -> Net:
        """The network for calls at one level, (1,) on the CPU: guided or not, whole batches.

        So the device is not asked, and a call outside the interval costs half.
        """
        if self.interval is None or self.interval.holds(level).item():
            return replace(self, interval=None)
        return self.net

    def __call__(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Both predictions of everybody, of any level each."""
        if self.weak is None:
            e, e_weak = self._with_and_without_label(x, level, y, omega, augment)
        else:
            e = self.net(x, level, y, omega, augment)
            e_weak = self.weak(x, level, y, omega, augment).to(e.dtype)
        push = _times(self.strength, e - e_weak)
        if self.interval is not None:
            push = torch.where(expand_as(self.interval.holds(level), x) > 0, push, 0.0)
        return e + push

    def _with_and_without_label(
        self, x: Tensor, level: Tensor, y: Tensor, omega: Tensor | None, augment: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Everybody, and everybody again without a label, in one forward."""
        out = self.net(
            torch.cat([x, x]),
            torch.cat([level, level]),
            torch.cat([y, torch.full_like(y, self.null_label)]),
            None if omega is None else torch.cat([omega, omega]),
            None if augment is None else torch.cat([augment, augment]),
        )
        e, e_null = out.chunk(2)
        return e, e_null


def _times(strength: Omega, push: Tensor) -> Tensor:
    """The push (N, C, H, W) times the strength, in its dtype: the same bits either way."""
    if isinstance(strength, Tensor):
        return (strength.view(-1, 1, 1, 1) * push).to(push.dtype)
    return strength * push


def at_level(net: Net, level: Tensor) -> Net:
    """What a sampler calls at a level, (1,) on the CPU, that is all its images'."""
    return net.at_level(level) if isinstance(net, Guided) else net


def trained(
    net: Net, omega: Omega, null_label: int, interval: GuidanceInterval | None = None
) -> Net:
    """Give the network the strength: TCFG taught it what to predict (Equation 32).

        net(x, level, y, omega)

    One prediction a step, where ``Guided`` needs two. Outside the interval, and without a
    label, it is given 0: no guidance, as there.
    """
    strength = omega

    def guided(
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        assert omega is None, "a guided network is not given a strength again"
        acts = y != null_label  # (N,)
        if interval is not None:
            acts = acts & interval.holds(level)
        return net(x, level, y, strength * acts.to(x.dtype), augment)

    return guided


def guide(
    net: Net,
    omega: Omega,
    null_label: int,
    interval: GuidanceInterval | None = None,
    mode: GuidanceMode = "cfg",
    weak: Net | None = None,
) -> Net:
    """The network guided with strength omega: by two predictions (cfg), or by one (tcfg).

    omega = 0 is the network itself: plain conditional sampling. ``weak``: by this worse network
    instead, whatever the mode. interval: levels that are guided; None: all.
    """
    if not isinstance(omega, Tensor) and not omega:  # by image they are not looked at: a sync
        return net
    if interval is not None and interval.is_everything:
        interval = None
    if mode == "tcfg" and weak is None:
        return trained(net, omega, null_label, interval)
    return Guided(net, omega, null_label, interval, weak)
