"""What the parts of the GPU benchmark share: device, budget, record, networks, batches."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import COUNTS
from benchmarks.timing import Bench, Cost, timed
from cbdm_scale.data.loader import Batch
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import DiTConfig, ModelConfig, SongConfig, UNetConfig
from cbdm_scale.models.spec import NetworkSpec

NUM_CLASSES = len(COUNTS)
NETWORKS: dict[str, ModelConfig] = {
    "U-Net": UNetConfig(),
    "DDPM++": SongConfig(),
    "DiT-S/2": DiTConfig(),
}
TINY_NETWORKS: dict[str, ModelConfig] = {
    "U-Net": UNetConfig(channels=8, groups=4, multipliers=(1, 2), num_blocks=1),
    "DDPM++": SongConfig(channels=8, multipliers=(1, 2), num_blocks=1),
    "DiT-S/2": DiTConfig(depth=1, width=32, heads=2),
}


@dataclass
class Context:
    """The run: where it computes, until when, and what it has found."""

    device: torch.device
    tiny: bool
    deadline: float
    """By time.perf_counter."""
    bench: Bench
    peak_flops: float = 790e12
    """Of bf16 products a second: that of an H200 until it is measured."""
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return 8 if self.tiny else 32

    def left(self) -> float:
        """Seconds of the budget."""
        return self.deadline - time.perf_counter()

    def sync(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def note(self, part: str, key: str, value: Any) -> None:
        """A figure: printed now, kept in the file."""
        self.bench.figures.setdefault(part, {})[key] = value
        print(f"  {key}: {value}", flush=True)

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """A failure inside is written down, and the rest goes on."""
        try:
            yield
        except Exception as error:
            lines = [line.strip() for line in traceback.format_exc().splitlines()]
            where = [line for line in lines if "cbdm_scale/" in line or "benchmarks/" in line]
            words = f"{type(error).__name__}: {str(error)[:300]}"
            self.failed[what] = f"{words} | {where[-1] if where else ''}"
            print(f"  FAILED {what}: {self.failed[what]}", flush=True)
            if self.is_cuda:
                torch.cuda.empty_cache()

    def turn(self, work: Callable[[], object], times: int = 1) -> Cost:
        """What a call costs, the device's work included; the mean of so many in a row."""
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

    def spec(self, network: str = "U-Net", **changed: Any) -> NetworkSpec:
        """One of NETWORKS, or small ones of their kinds."""
        model = replace((TINY_NETWORKS if self.tiny else NETWORKS)[network], **changed)
        return NetworkSpec(
            model=model, channels=3, image_size=self.size, num_classes=NUM_CLASSES
        )

    def net(self, network: str = "U-Net", *, channels_last: bool = True, **changed: Any) -> Any:
        """A fresh network on the device, of the same weights at every call."""
        net = fresh(self.spec(network, **changed)).to(self.device)
        return net.to(memory_format=torch.channels_last) if channels_last else net

    def batch(self, n: int, first: int = 0) -> Batch:
        return make_batch(n, self.size, first)


@cache
def _built(spec: NetworkSpec) -> nn.Module:
    torch.manual_seed(0)
    return build(spec)


def fresh(spec: NetworkSpec) -> nn.Module:
    """The network of a spec with weights of one seed, on the CPU."""
    return deepcopy(_built(spec))


def awake(net: nn.Module) -> nn.Module:
    """Fresh networks predict nearly 0: give the last layers weights that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1 and float(p.std()) < 2e-3:
                nn.init.xavier_uniform_(p, 0.5)
            elif p.ndim == 1 and float(p.abs().max()) == 0:
                p.normal_(std=0.02)
    return net


def make_batch(n: int, size: int, first: int = 0, *, augment: bool = False) -> Batch:
    """n images of noise, numbered from ``first``, with ADA's nine numbers if asked."""
    g = torch.Generator().manual_seed(7)
    x0 = torch.rand(n, 3, size, size, generator=g) * 2 - 1
    y = torch.multinomial(COUNTS.double(), n, replacement=True, generator=g)
    nine = torch.rand(n, 9, generator=g) - 0.5 if augment else None
    return Batch(x0, y, torch.arange(n) + first, ("",) * n, (), nine)


@cache
def forward_flops(spec: NetworkSpec) -> int:
    """Floating-point operations of one image's prediction, counted without computing it."""
    with FakeTensorMode():
        net = build(spec)
        x = torch.zeros(1, *spec.image_shape)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            net(x, torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    return flops.get_total_flops()


def predictions(loss: LossConfig) -> float:
    """Images through the network for each image of the batch, in expectation."""
    extra = loss.reg_share * (1 - loss.p_uncond) if loss.regularises else 0
    return 1 + extra


def difference(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@contextmanager
def ieee(on: bool = True) -> Iterator[None]:
    """Convolutions and products in true float32 (torch's default for convolutions is TF32)."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    if on:
        cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@contextmanager
def recorded_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """All warnings of a block, each time that they come."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def lines(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of figures, one a line."""
    return "\n".join(
        f"{name:52s} " + "  ".join(f"{k} {v}" for k, v in row.items())
        for name, row in rows.items()
    )
