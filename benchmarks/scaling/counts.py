"""What a preset computes and reduces in a step, counted: its own network, its own loss.

Nothing is allocated or computed: the network runs on fake tensors (shapes only).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scaling.model import Work
from benchmarks.scaling.variants import buckets_of
from cbdm_scale.config.presets import PRESETS, PUBLISHED
from cbdm_scale.config.schema import Config
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.losses.build import build_loss
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec


@dataclass(frozen=True)
class Counted:
    """A group of presets that compute alike."""

    names: tuple[str, ...]
    config: Config
    parameters: int
    predictions: float
    """Images that go through the network for each image of the batch."""
    work: Work


class Kernels(TorchDispatchMode):
    """Counts operations that compute; views and questions about a tensor do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_view = getattr(func, "is_view", False) or func is torch.ops.aten.detach.default
        self.count += func.namespace == "aten" and not is_view
        return func(*args, **(kwargs or {}))


def network_of(config: Config) -> nn.Module:
    return build(network_spec(config, PUBLISHED[config.dataset]))


def predictions(config: Config) -> float:
    """Images that the preset's loss sends through the network, for each of its batch."""
    images = PUBLISHED[config.dataset]
    counts = torch.ones(images.num_classes)
    process = build_process(config.noise)
    n, seen = config.train.batch_size, 0
    loss, draw = build_loss(config.loss, process, counts, config.seed, n)

    def net(x: Tensor, level: Tensor, y: Tensor, **more: object) -> Tensor:
        nonlocal seen
        seen += len(x)
        return x

    x0, y = torch.zeros(n, images.channels, 1, 1), torch.zeros(n, dtype=torch.int64)
    loss(net, x0, y, draw(torch.arange(n), (images.channels, 1, 1), torch.device("cpu"), None))
    return seen / n


def count(config: Config) -> tuple[int, float, Work]:
    """(parameters, predictions an image, the work of a step)."""
    images = PUBLISHED[config.dataset]
    with FakeTensorMode():
        net = network_of(config)
        x = torch.zeros(1, images.channels, images.image_size, images.image_size)
        # EDM's levels are noise amounts, DDPM's are steps.
        level = torch.ones(1) if config.process == "edm" else torch.ones(1, dtype=torch.int64)
        y = torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as flops, Kernels() as kernels:
            net(x, level, y).sum().backward()
        parameters = sum(p.numel() for p in net.parameters())
        buckets = buckets_of(net)
    per_image = predictions(config)
    work = Work(
        flops_per_image=per_image * flops.get_total_flops(),
        kernels=kernels.count,
        gradient_bytes=4 * parameters,
        buckets=len(buckets),
        hidden=1 - buckets[-1] / sum(buckets),
    )
    return parameters, per_image, work


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
        found.append(Counted(tuple(name for name, _ in members), config, *count(config)))
    return found
