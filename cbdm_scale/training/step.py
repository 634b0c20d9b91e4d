"""One optimiser step: gradients, clipping, Adam and the averages.

What it computes depends on its arguments alone, and nothing in it waits for the device, so that
the same function runs as it is, or is captured once and replayed (graph.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cbdm_scale.losses.build import Loss
from cbdm_scale.storage.wording import clip
from cbdm_scale.torch_internals import compile_options, tree_leaves
from cbdm_scale.training.checkpoint import TrainState
from cbdm_scale.training.device_transfer import MicroBatch
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.gradients import ClippedAdam, backward
from cbdm_scale.training.meter import sums_of
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.power_ema import PowerEMA


@dataclass(frozen=True)
class Rates:
    """What changes from step to step beside the batch: numbers, or tensors () of a graph."""

    lr: float | Tensor
    shares: tuple[float | Tensor, ...]
    """Of the new weights in each average: the EMA's, then those of `TrainState.posthoc`."""


@dataclass(frozen=True)
class StepResult:
    """What a step leaves on the device, beside the state."""

    sums: list[dict[str, Tensor]]  # of each micro-batch: name of a term -> () float64
    norm: Tensor  # () of the gradient, before clipping


class TrainStep:
    """The step of a run, with the lists that it needs made once."""

    def __init__(
        self, state: TrainState, net: nn.Module, loss: Loss, config: TrainConfig, world: World
    ):
        self.state, self.net, self.loss, self.config, self.world = (
            state,
            net,
            loss,
            config,
            world,
        )
        self.update = ClippedAdam(state.optimizer, config.max_grad_norm)
        self.averages: list[EMA | PowerEMA] = [state.ema, *state.posthoc]

    def rates(self, num_seen: int) -> Rates:
        """Of the step that begins at an image: the learning rate, and the shares."""
        config = self.config
        lr = config.lr * min(num_seen / max(config.warmup_images, 1), 1)
        if config.lr_schedule == "linear":
            falls = config.total_images - config.warmup_images
            lr *= min((config.total_images - num_seen) / max(falls, 1), 1)
        end, size = num_seen + config.batch_size, config.batch_size
        return Rates(lr, tuple(1 - average.decay(end, size) for average in self.averages))

    def gradients(self, parts: Sequence[MicroBatch]) -> list[dict[str, Tensor]]:
        """Leave a batch's gradient in the network; the sums of its micro-batches' terms."""
        self.update.zero_grad()
        precision = self.config.precision
        found = backward(self.net, self.loss, parts, self.world, precision=precision)
        return [sums_of(terms) for terms in found]

    def __call__(self, parts: Sequence[MicroBatch], rates: Rates) -> StepResult:
        """Take the step."""
        sums = self.gradients(parts)
        norm = self.update.step(rates.lr)
        for average, share in zip(self.averages, rates.shares, strict=True):
            average.running.take(self.state.net, share)
        return StepResult(sums, norm)


def compiled(net: nn.Module) -> nn.Module:
    """The network as torch.compile makes it, for each shape anew."""
    options: dict[str, str | int | bool | Callable[..., object]] = {}
    slow = "loop_reindexing_after_fusion"
    if slow in compile_options():
        # With it upsampling, convolution, norm and SiLU as one take six times as long
        # (pytorch#189488, #191134).
        options[slow] = False
    return cast(nn.Module, torch.compile(net, dynamic=False, options=options))


class Compiled(nn.Module):
    """A network as torch.compile makes it; where that fails as it is, and a line says why.

    Its first call is made twice: compiled, backward included, for nothing, before the ranks
    reduce or a gradient is kept. Dropout's numbers are those of the network as it is.
    """

    def __init__(self, net: nn.Module, log: Callable[[str], None]):
        super().__init__()
        self.net, self.log = net, log
        self.call: Callable[..., Any] | None = None

    def forward(self, *given: Any, **named: Any) -> Any:
        """As the network's own."""
        call = self.call
        if call is None:
            call = compiled(self.net)
            try:
                self._try(call, *given, **named)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # each backend, compiler and driver raises its own
                call = self.net
                cause = getattr(error, "inner_exception", error)  # of Dynamo's own, the reason
                why = str(cause).strip().partition("\n")[0] or type(cause).__name__
                self.log(f"train.compile: off, because {clip(why, 300)}")
            object.__setattr__(self, "call", call)  # no second owner of the weights
        return call(*given, **named)

    def _try(self, call: Callable[..., Any], *given: Any, **named: Any) -> None:
        devices = {p.device for p in self.net.parameters() if p.is_cuda}
        with torch.random.fork_rng([*devices]):
            total = sum(part.float().sum() for part in tree_leaves(call(*given, **named)))
            learning = [p for p in self.net.parameters() if p.requires_grad]
            if learning and torch.is_grad_enabled():  # kept nowhere: DDP does not see them
                torch.autograd.grad(total, learning, allow_unused=True)
        torch.clear_autocast_cache()


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator of one device; ``torch.manual_seed`` goes through all of them."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
