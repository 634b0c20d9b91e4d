"""The gradient of a step, and what is done with it: accumulate, clip, skip, update.

Shapes: n = images of this rank in a step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cbdm_scale.data.loader import Batch
from cbdm_scale.losses.build import Loss
from cbdm_scale.losses.draws import Drawer
from cbdm_scale.training.distributed import World


class RunError(Exception):
    """What stops a run on every rank at once, in words for the user; never retried."""


def backward(
    net: nn.Module,
    loss: Loss,
    draw: Drawer,
    batch: Batch,
    world: World,
    *,
    micro_batch: int,
    precision: str,
    channels_last: bool,
) -> Iterable[dict[str, Tensor]]:
    """Leave in every ``.grad`` the mean over all ranks; yields the terms of each micro-batch.

    Micro-batches change nothing but memory: each adds its images' share of the mean, and the
    ranks' gradients are averaged once, with the last.
    """
    n = len(batch.y)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    parts = list(torch.arange(n).split(micro_batch or n))
    for i, part in enumerate(parts):
        x0 = batch.x0[part].to(world.device, memory_format=layout, non_blocking=True)
        y = batch.y[part].to(world.device, non_blocking=True)
        augment = None if batch.augment is None else batch.augment[part]
        draws = draw(batch.sample_ids[part], tuple(x0.shape[1:]), world.device, augment)
        with world.no_sync(net, on=i + 1 < len(parts)):
            bf16 = precision == "bf16"
            with torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=bf16):
                terms = loss(net, x0, y, draws)  # name -> (len(part),)
            (terms["total"].sum() / n).backward()
        yield {name: term.detach() for name, term in terms.items()}


def clip_and_step(optimizer: torch.optim.Optimizer, lr: float, clip: float) -> Tensor:
    """One step of a fused optimiser with gradients scaled to a norm of at most ``clip``.

    Returns the norm before clipping, on the device. Where it is not finite, the optimiser
    skips the step by itself, on the device: nothing waits for the decision.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    for group in optimizer.param_groups:
        group["lr"] = lr
    # The fused kernel divides by grad_scale and skips where found_inf is 1.
    optimizer.grad_scale = (norm / clip).clamp_min(1)  # type: ignore[attr-defined]
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    return norm


class NonFiniteGuard:
    """Counts the steps that were skipped, reading one step late so that no device waits.

    The norm is the reduced gradient's and so the same on every rank: all come to one verdict.
    """

    def __init__(self, max_in_a_row: int):
        self.max_in_a_row = max_in_a_row
        self.in_a_row = 0
        self.pending: tuple[Tensor, tuple[str, ...]] | None = None
        self.keys: list[str] = []

    def record(self, norm: Tensor, keys: tuple[str, ...]) -> int:
        """Keep the gradient's norm and the sample keys of a step; 1 if the last was skipped."""
        skipped = self.flush()
        self.pending = norm, keys
        return skipped

    def flush(self) -> int:
        """1 if the step recorded last was skipped; RunError after too many in a row."""
        if self.pending is None:
            return 0
        (norm, keys), self.pending = self.pending, None
        if norm.isfinite().item():  # syncs, a step late
            self.in_a_row, self.keys = 0, []
            return 0
        self.in_a_row += 1
        self.keys += keys
        if self.in_a_row >= self.max_in_a_row:
            raise RunError(
                f"the gradient was not finite in {self.in_a_row} steps in a row "
                f"(train.max_bad_steps). Samples of this rank: {', '.join(self.keys[:64])}. "
                "Look at these images, lower --train.lr or try --train.precision fp32."
            )
        return 1
