"""What the parts of the GPU benchmark share: device, budget, record, networks, batches."""

import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import NUM_CLASSES
from benchmarks.timing import Bench, Cost, timed
from cbdm_scale.models.build import build
from cbdm_scale.models.options import DiTConfig, ModelConfig, SongConfig, UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.torch_internals import shapes_only

UNET, DDPMPP, DIT = "U-Net", "DDPM++", "DiT-S/2"
NETWORKS: dict[str, ModelConfig] = {
    UNET: UNetConfig(),
    DDPMPP: SongConfig(),
    DIT: DiTConfig(),
}
TINY_NETWORKS: dict[str, ModelConfig] = {
    UNET: UNetConfig(channels=8, groups=4, multipliers=(1, 2), num_blocks=1),
    DDPMPP: SongConfig(channels=8, multipliers=(1, 2), num_blocks=1),
    DIT: DiTConfig(depth=1, width=32, heads=2),
}


@dataclass
class Context:
    """The run: where it computes, until when, and what it has found."""

    device: torch.device
    tiny: bool
    bench: Bench
    deadline: float = float("inf")
    """Of the part that runs, by time.perf_counter."""
    peak_flops: float = 790e12
    """bf16 operations of a matrix product a second: an H200's until it is measured."""
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return 8 if self.tiny else 32

    def has(self, seconds: float, what: str) -> bool:
        """Whether so much of the part's time is left; what it is not left for is listed."""
        enough = self.tiny or self.deadline - time.perf_counter() > seconds
        if not enough:
            self.skipped.append(what)
        return enough

    def sync(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def note(self, part: str, key: str, value: Any) -> None:
        """A figure: printed now, kept in the file."""
        self.bench.figures.setdefault(part, {})[key] = value
        print(f"  {key}: {value}", flush=True)

    @contextmanager
    def guarded(self, part: str, key: str = "") -> Iterator[None]:
        """A failure inside is written down, and the rest goes on."""
        try:
            yield
            if self.is_cuda:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
        except Exception as error:
            what = f"{part}: {key}" if key else part
            lines = [line.strip() for line in traceback.format_exc().splitlines()]
            where = [line for line in lines if "cbdm_scale/" in line or "benchmarks/" in line]
            words = f"{type(error).__name__}: {str(error)[:300]} | {where[-1] if where else ''}"
            self.failed[what] = words
            print(f"  FAILED {what}: {words}", flush=True)

    def turn(self, work: Callable[[], object], times: int = 1) -> Cost:
        """What a call costs, the device's work included: the mean of so many in a row."""
        self.sync()

        def calls() -> None:
            for _ in range(times):
                work()
            self.sync()

        cost = timed(calls)
        return Cost(cost.wall / times, cost.cpu / times)

    def seconds(self, work: Callable[[], object], repeat: int = 5, warm: int = 2) -> float:
        """Median seconds of a call, the device's work included."""
        for _ in range(warm):
            work()
        return statistics.median(self.turn(work).wall for _ in range(repeat))

    def spec(self, network: str = UNET, **changed: Any) -> NetworkSpec:
        """One of NETWORKS, or a small one of its kind."""
        model = replace((TINY_NETWORKS if self.tiny else NETWORKS)[network], **changed)
        return NetworkSpec(
            model=model, channels=3, image_size=self.size, num_classes=NUM_CLASSES
        )

    def net(self, network: str = UNET) -> nn.Module:
        """A network on the device, of the same weights at every call."""
        net = fresh(self.spec(network))
        return net.to(self.device, memory_format=torch.channels_last)


@cache
def _built(spec: NetworkSpec) -> nn.Module:
    torch.manual_seed(0)
    return build(spec)


def fresh(spec: NetworkSpec) -> nn.Module:
    """The network of a spec with weights of one seed, on the CPU."""
    return deepcopy(_built(spec))


@cache
def forward_flops(spec: NetworkSpec) -> int:
    """Floating-point operations of one image's prediction, counted without computing it."""
    with shapes_only():
        net, x = build(spec), torch.zeros(1, *spec.image_shape)
        level, y = (torch.ones(1, dtype=torch.int64) for _ in range(2))
        flops = FlopCounterMode(display=False)
        # Of attention's kernels, not every torch knows the operations of each.
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), flops:
            net(x, level, y)
    return flops.get_total_flops()


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To four digits."""
    return {name: float(f"{value:.4g}") for name, value in figures.items()}
