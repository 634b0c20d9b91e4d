"""The gradient of a step, and what is done with it: accumulate, clip, skip, update.

Shapes: n = images of this rank in a step.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from cbdm_scale.losses.build import Loss
from cbdm_scale.storage.wording import shorten
from cbdm_scale.torch_internals import foreach_norm, fused_adam_
from cbdm_scale.training.device_transfer import HostCopy, MicroBatch
from cbdm_scale.training.distributed import World


class RunError(Exception):
    """What stops a run on every rank at once, in words for the user; never retried."""


class DeviceMemoryError(RunError):
    """A GPU is too small for a step, in which the state may have stopped: it is not saved."""


def backward(
    net: nn.Module, loss: Loss, parts: Sequence[MicroBatch], world: World, *, precision: str
) -> Iterable[dict[str, Tensor]]:
    """Leave in every ``.grad`` the mean over all ranks; yields the terms of each micro-batch.

    Micro-batches change nothing but memory, unless a term compares images: each adds its
    images' share of the mean, and the ranks' gradients are averaged once, with the last.
    """
    n = sum(len(part.y) for part in parts)
    for i, part in enumerate(parts):
        with world.no_sync(net, on=i + 1 < len(parts)):
            bf16 = precision == "bf16"
            with torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=bf16):
                terms = loss(net, part.x0, part.y, part.draws)  # name -> (len(part.y),)
            (terms["total"].sum() / n).backward()
        yield {name: term.detach() for name, term in terms.items()}


class ClippedAdam:
    """The step of a fused Adam with gradients scaled to a norm of at most ``max_grad_norm``.

    It is torch's, bit for bit, on lists of tensors that are made once and not in every step.
    Where the norm is not finite the kernel skips the step by itself, on the device: nothing
    waits for the decision.
    """

    def __init__(self, optimizer: torch.optim.Adam, max_grad_norm: float):
        self.optimizer, self.max_grad_norm = optimizer, max_grad_norm
        (self.group,) = optimizer.param_groups
        self.held: list[Tensor] = []
        """Parameters that have a gradient; those of a branch that is not used have none."""
        self.moments: dict[str, list[Tensor]] = {}

    def zero_grad(self) -> None:
        """Let go of the gradients."""
        for parameter in self.group["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> Tensor:
        """Update the weights; the gradient's norm before clipping, on the device."""
        held = [p for p in self.group["params"] if p.grad is not None]
        if len(held) != len(self.held):
            self._hold(held)
        grads = [p.grad for p in held]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(foreach_norm(grads)))
        # The fused kernel divides by grad_scale and skips where found_inf is 1.
        scale, skipped = (norm / self.max_grad_norm).clamp_min(1), (~norm.isfinite()).float()
        beta1, beta2 = self.group["betas"]
        self.steps.add_(1)
        fused_adam_(
            held,
            grads,
            self.moments["exp_avg"],
            self.moments["exp_avg_sq"],
            [],
            self.moments["step"],
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=self.group["weight_decay"],
            eps=self.group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=scale,
            found_inf=skipped,
        )
        self.steps.sub_(skipped)
        return norm

    def _hold(self, parameters: list[Tensor]) -> None:
        """Make the lists, and the moments of parameters that have not moved yet.

        The steps of all are one tensor, counted at once; each has its own number of it.
        """
        state = self.optimizer.state
        for p in parameters:
            if not state[p]:
                state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
                }
        self.held = parameters
        self.steps = torch.stack([state[p]["step"] for p in parameters])
        for p, step in zip(parameters, self.steps.unbind(), strict=True):
            state[p]["step"] = step
        kinds = ("step", "exp_avg", "exp_avg_sq")
        self.moments = {kind: [state[p][kind] for p in parameters] for kind in kinds}


class NonFiniteGuard:
    """Counts the steps that were skipped, reading one step late so that no device waits.

    The norm is the reduced gradient's and so the same on every rank: all come to one verdict.
    """

    def __init__(self, max_in_a_row: int):
        self.max_in_a_row = max_in_a_row
        self.in_a_row = 0
        self.pending: tuple[HostCopy, tuple[str, ...]] | None = None
        self.keys: list[str] = []

    def record(self, norm: Tensor, keys: tuple[str, ...]) -> int:
        """Keep the gradient's norm and the sample keys of a step; 1 if the last was skipped."""
        skipped = self.flush()
        self.pending = HostCopy(norm), keys
        return skipped

    def flush(self) -> int:
        """1 if the step recorded last was skipped; RunError after too many in a row."""
        if self.pending is None:
            return 0
        (norm, keys), self.pending = self.pending, None
        if math.isfinite(norm.read()):  # waits for the step before, never for the last
            self.in_a_row, self.keys = 0, []
            return 0
        self.in_a_row += 1
        self.keys += keys
        if self.in_a_row >= self.max_in_a_row:
            raise RunError(
                f"the gradient was not finite in {self.in_a_row} steps in a row "
                f"(train.max_bad_steps). Samples of this rank: {shorten(self.keys, 10)}. "
                "Look at these images, lower --train.lr or try --train.precision fp32."
            )
        return 1
