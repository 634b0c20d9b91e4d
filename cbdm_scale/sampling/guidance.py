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
    """What ``classifier_free`` and ``autoguided`` make of a network: a ``denoiser.Net``."""

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


def _is_none(strength: Omega) -> bool:
    """Whether nothing is guided; strengths by image are not looked at, which would sync."""
    return not isinstance(strength, Tensor) and not strength


def classifier_free(
    net: Net, omega: Omega, null_label: int, interval: GuidanceInterval | None = None
) -> Net:
    """Push the prediction away from the unconditional one (Ho & Salimans, 2022).

        (1 + omega) e - omega e_null

    omega = 0 is plain conditional sampling, and the network itself. Papers that write w = 1
    for that case use w = 1 + omega. Costs one forward of twice the batch. Images whose level
    lies outside the interval (None: all levels) are not guided; samplers, whose images share a
    level, save the second half there (``at_level``).
    """
    return net if _is_none(omega) else Guided(net, omega, null_label, _narrow(interval))


def autoguided(
    net: Net,
    weak: Net,
    omega: Omega,
    null_label: int,
    interval: GuidanceInterval | None = None,
) -> Net:
    """Push the prediction away from that of a worse network (Karras et al., 2024, Section 3).

        e + omega (e - e_weak)

    Both with the label: what the worse network lacks is added, not what the label adds, so the
    images of a class keep their variety. ``weak`` is a smaller network, one of less training or
    of a shorter average, of the same process. omega = 0 is the network itself; the paper's w is
    1 + omega. Outside the interval ``weak`` is not asked by the samplers.
    """
    if _is_none(omega):
        return net
    return Guided(net, omega, null_label, _narrow(interval), weak)


def _narrow(interval: GuidanceInterval | None) -> GuidanceInterval | None:
    """None where it holds at all levels."""
    return None if interval is None or interval.is_everything else interval


def at_level(net: Net, level: Tensor) -> Net:
    """What a sampler calls at a level, (1,) on the CPU, that is all its images'."""
    return net.at_level(level) if isinstance(net, Guided) else net


def trained(
    net: Net, omega: Omega, null_label: int, interval: GuidanceInterval | None = None
) -> Net:
    """Give the network the strength: TCFG taught it what to predict (Equation 32).

        net(x, level, y, omega)

    One prediction a step, where ``classifier_free`` needs two. omega = 0 is the network itself.
    Outside the interval, and without a label, it is given 0: no guidance, as there.
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
        if interval is not None and not interval.is_everything:
            acts = acts & interval.holds(level)
        return net(x, level, y, strength * acts.to(x.dtype), augment)

    return net if _is_none(strength) else guided


def guide(
    net: Net,
    omega: Omega,
    null_label: int,
    interval: GuidanceInterval | None = None,
    mode: GuidanceMode = "cfg",
    weak: Net | None = None,
) -> Net:
    """The network guided with strength omega, by two predictions (cfg) or one (tcfg).

    ``weak``: by this worse network instead, whatever the mode.
    """
    if weak is not None:
        return autoguided(net, weak, omega, null_label, interval)
    match mode:
        case "cfg":
            return classifier_free(net, omega, null_label, interval)
        case "tcfg":
            return trained(net, omega, null_label, interval)
