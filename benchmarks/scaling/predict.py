"""Predicted efficiency of every preset on 8 to 512 GPUs.

What a step computes and reduces is counted: the preset's own network, its own loss. What the
host takes for it was measured once, on one GPU. The rest is from published figures of networks
and GPUs, each with its source. A vendor's number is a peak. Of networks the model takes 80 %
(what NCCL reaches of NVLink and of adapters in large all-reduces: 235 of 300 GB/s on an A100
node, 377 of 400 between B200 nodes, in the network chapter of Stas Bekman's Machine Learning
Engineering), of GPUs a stated share: nobody has published one for these networks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scaling import model
from benchmarks.scaling.variants import buckets_of
from benchmarks.timing import markdown, parse
from cbdm_scale.config.presets import PRESETS, PUBLISHED
from cbdm_scale.config.schema import Config
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.torch_internals import DispatchMode, shapes_only

GPUS = (8, 16, 32, 64, 128, 256, 512)
RECIPES = "cifar100_lt cbdm", "imagenet_lt cbdm", "cifar100_lt cbdm_edm"
REACHED = 0.8
"""Share of a network's peak that a large all-reduce reaches."""
HOP_S = 10e-6
"""Seconds of a hop between nodes, with RDMA: half of what 16 ranks take for a small all-reduce
divided by its hops; TCP takes several times as long."""
TCP_HOP_S = 50e-6
LAUNCH_S = 69.2e-3 / 2083
"""Seconds of the host for an operation: a step of DDPM at batch 64, which waited for its host
beside an H200 (docs/benchmarks.md), by the operations of that step then. With Python, autograd
and autocast; bare, one took 8.5 us there."""
BESIDE = 200
"""Operations of a step beside its network: 174 of DDPM, 208 of CBDM. With the network's, which
are counted with attention in parts, that is a tenth more than the loop's own on a CPU."""
HOSTS = {"kernel by kernel": LAUNCH_S, "if the host were no limit": 0.0}
"""Steps of several GPUs are the first. What --train.compile leaves of it was not measured."""
UTILISATION = 0.25
"""Share of the bf16 peak that the arithmetic reaches: an assumption. A prototype of the step as
a CUDA graph had 8 % at batch 64. More of it makes the network matter more."""


@dataclass(frozen=True)
class Place:
    """A kind of cluster."""

    name: str
    device: model.Device
    network: model.Network
    source: str


def place(
    name: str, tflops: float, nvlink: float, gbit: float, hop: float, source: str
) -> Place:
    """From peak figures: dense bf16 of a GPU; GB/s of it within its node, each direction;
    Gbit/s of all adapters of a node; seconds of a hop."""
    device = model.Device(flops=UTILISATION * tflops * 1e12)
    inside, between = REACHED * nvlink * 1e9, REACHED * gbit / 8 * 1e9
    return Place(
        name, device, model.Network(inside=inside, between=between, latency=hop), source
    )


H100 = (
    "NVIDIA DGX H100 data sheet: NVLink 900 GB/s both directions, 8 x ConnectX-7 of 400 "
    "Gbit/s; NVIDIA H100 SXM data sheet: 989 TFLOPS bf16 without sparsity. AWS p5.48xlarge "
    "(EFA, 3,200 Gbit/s) has the same figures"
)
A100 = (
    "NVIDIA DGX A100 data sheet: NVLink 600 GB/s both directions; NVIDIA A100 data sheet: 312 "
    "TFLOPS bf16; one adapter and TCP"
)
PLACES = (
    place("H100, 8 x 400 Gbit/s InfiniBand", 989, 450, 3200, HOP_S, H100),
    place("A100, 100 Gbit/s Ethernet", 312, 300, 100, TCP_HOP_S, A100),
)


@dataclass(frozen=True)
class Counted:
    """A group of presets that compute alike."""

    names: tuple[str, ...]
    config: Config
    work: model.Work


class Kernels(DispatchMode):
    """Counts operations that compute; views and questions about a tensor do not."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_view = getattr(func, "is_view", False) or func is torch.ops.aten.detach.default
        self.count += func.namespace == "aten" and not is_view
        return func(*args, **(kwargs or {}))


def count(config: Config) -> model.Work:
    """Of a step, on tensors that have shapes and no memory."""
    images = PUBLISHED[config.dataset]
    with shapes_only():
        net = build(network_spec(config, images))
        x = torch.zeros(1, images.channels, images.image_size, images.image_size)
        level, y = torch.ones(1), torch.zeros(1, dtype=torch.int64)
        bf16 = torch.autocast("cpu", torch.bfloat16, config.train.precision == "bf16")
        with FlopCounterMode(display=False) as flops, Kernels() as kernels:
            with bf16:
                out = net(x, level, y).sum()
            out.backward()
        buckets = buckets_of(net)
    return model.Work(
        flops_per_image=config.loss.predictions * flops.get_total_flops(),
        kernels=kernels.count + BESIDE,
        gradient_bytes=sum(buckets),
        buckets=len(buckets),
        hidden=1 - buckets[-1] / sum(buckets),
    )


def alike(config: Config) -> tuple[object, ...]:
    """Presets of which this is the same compute, reduce and batch alike."""
    images, loss = PUBLISHED[config.dataset], config.loss
    data = images.channels, images.image_size, config.data.conditions_on_augmentation
    return config.model, config.process, loss.name, loss.tcfg, config.train.batch_size, data


def count_presets(wanted: Iterable[tuple[str, str]] = PRESETS) -> list[Counted]:
    """Every preset once, those that compute alike together (their labels may differ)."""
    groups: dict[tuple[object, ...], list[tuple[str, Config]]] = {}
    for dataset, row in wanted:
        config = PRESETS[dataset, row]()
        groups.setdefault(alike(config), []).append((f"{dataset} {row}", config))
    found = []
    for members in groups.values():
        # The most classes: the largest table of labels.
        config = max((c for _, c in members), key=lambda c: PUBLISHED[c.dataset].num_classes)
        found.append(Counted(tuple(name for name, _ in members), config, count(config)))
    return found


def assumptions() -> str:
    lines = [
        f"A GPU computes at {UTILISATION:.0%} of its bf16 peak, or as fast as its host starts "
        f"operations ({LAUNCH_S * 1e6:.0f} us each), whichever is slower.",
        f"A network carries {REACHED:.0%} of its peak; gradients are fp32, in DDP's buckets; "
        "all communication that can hide behind the backward pass does.",
        *(f"{place.name}: {place.source}." for place in PLACES),
    ]
    return "\n".join(lines)


def shared_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch shared out: speed-up over one GPU (efficiency), "-" if it cannot be."""
    rows = []
    for c in counted:
        batch, cells = c.config.train.batch_size, []
        for gpus in GPUS:
            s = model.speedup(c.work, place.device, place.network, gpus, batch, grown=False)
            cells.append(f"{s:.1f}x ({s / gpus:.0%})" if model.divides(batch, gpus) else "-")
        alone = model.compute_seconds(c.work, place.device, batch)
        rows.append([c.names[0], batch, f"{alone * 1e3:.1f}", *cells])
    return markdown(["preset", "batch", "one GPU ms", *GPUS], rows)


def grown_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch on every GPU: efficiency."""
    rows = []
    for c in counted:
        work, batch = c.work, c.config.train.batch_size
        found = [
            model.efficiency(work, place.device, place.network, gpus, batch, grown=True)
            for gpus in GPUS
        ]
        reduce = model.reduce_seconds(work, place.network, 512)
        rows.append([c.names[0], batch, f"{reduce * 1e3:.1f}", *(f"{e:.1%}" for e in found)])
    return markdown(["preset", "images a GPU", "all-reduce of 512 ms", *GPUS], rows)


def recipe_table(counted: Counted) -> str:
    """What a batch that grows with the GPUs asks of the recipe of one preset."""
    train, rows = counted.config.train, []
    for gpus in (1, *GPUS):
        batch = train.batch_size * gpus
        rates = [f"{model.grown_lr(train.lr, gpus, rule):.2g}" for rule in ("sqrt", "linear")]
        steps = [f"{images // batch:,}" for images in (train.total_images, train.warmup_images)]
        rows.append([gpus, f"{batch:,}", steps[0], *rates, steps[1]])
    head = "batch", "steps of the same images", "lr, square root", "lr, linear", "warm-up steps"
    return markdown([f"{counted.names[0]}: GPUs", *head], rows)


def main() -> None:
    parse(__doc__)
    counted = count_presets()
    print(assumptions())
    for each, (host, launch) in product(PLACES, HOSTS.items()):
        place = replace(each, device=replace(each.device, launch=launch))
        about = f"\n{place.name}, {host}: the preset's batch"
        print(f"{about} shared out\n\n{shared_table(counted, place)}")
        print(f"{about} on every GPU\n\n{grown_table(counted, place)}")
    print(*("\n" + recipe_table(c) for c in counted if {*RECIPES} & {*c.names}), sep="\n")
