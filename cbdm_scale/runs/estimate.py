"""Before a run: how long it takes on machines like this one, and what makes it too short."""

import time
from dataclasses import replace
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cbdm_scale.cluster.progress import duration
from cbdm_scale.config.presets import PublishedSet
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.devices import open_device
from cbdm_scale.evaluation.pace import images_to_make
from cbdm_scale.generation.chunk_size import usual_chunk_size
from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import set_trainable
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.torch_internals import shapes_only
from cbdm_scale.training.options import per_rank

LONG_S = 0.25
"""Seconds of a measurement that is long enough to be believed."""
REPEATS = 3
"""Measurements of which the shortest counts: other work on the machine makes them longer."""
LARGE_FLOPS = 2e9
"""Of an image, from which on a network is too slow to be tried on a CPU."""
YARDSTICK = UNetConfig(channels=128, multipliers=(1,), num_blocks=1, attention=())
"""A piece of the paper's U-Net."""


def short_run_warnings(config: Config) -> list[str]:
    """What keeps a run of so few images from learning or from showing it, and the way out."""
    train, total = config.train, config.train.total_images
    found = []
    if train.warmup_images > total / 2:
        found.append(
            f"train.warmup_images ({train.warmup_images:,}) is more than half of "
            f"train.total_images ({total:,}): the learning rate hardly comes to train.lr. Try "
            f"--train.warmup-images {total // 20}"
        )
    random_share = 0.5 ** (total / train.ema_halflife)
    if not (config.init_from or train.ema_ramp) and random_share > 0.05:
        found.append(
            f"the averaged weights, of which images are made, are still {random_share:.0%} the "
            f"random ones of the start: train.ema_halflife ({train.ema_halflife:,.0f}) is long "
            f"for train.total_images ({total:,}). Try --train.ema-halflife {total // 10}"
        )
    if train.log_every > total:
        found.append(
            f"train.log_every ({train.log_every:,}) is more than train.total_images "
            f"({total:,}): no loss is logged. Try --train.log-every {max(total // 20, 1)}"
        )
    return found


def estimate_time(config: Config, image: Manifest | PublishedSet) -> dict[str, str]:
    """Speed of a worker on this machine, measured in seconds, and what follows from it."""
    device = open_device(config.cluster.device != "cpu" and torch.cuda.is_available())
    threads = torch.get_num_threads()
    torch.set_num_threads(config.cluster.threads)
    try:
        forward_s, both_s = _measure(config, image, device)
    finally:
        torch.set_num_threads(threads)
    loss, train, judged = config.loss, config.train, config.eval
    rate = 1 / (both_s * loss.predictions + forward_s * loss.teacher_predictions)
    workers = config.cluster.ranks
    seconds = train.total_images / rate
    made, grids = (
        images_to_make(one, image.num_classes, train.batch_size, waits=True)
        for one in (config, replace(config, eval=replace(judged, extractor="none")))
    )
    calls = made * config.sample.calls * _predictions(config)
    learnt = round(train.total_images * (loss.predictions + loss.teacher_predictions))
    lines = {
        "images a second": f"{rate:.3g} by a worker on the {device.type.upper()} here",
        "time of training": duration(seconds / workers),
    }
    if judged.extractor != "none":
        sets = (made - grids) // judged.num_images
        own = judged.extractor.partition(":")[0] == "classifier"
        beside = "" if own else f"; what {judged.extractor} takes is not in it"
        lines["time of evaluations"] = (
            f"{duration(calls * forward_s / workers)} for {sets} x {judged.num_images:,} "
            f"images and {grids:,} of grids{beside}"
        )
    each = (1, "GPU") if device.type == "cuda" else (config.cluster.cpus_per_worker, "core")
    hours = (seconds + calls * forward_s) * each[0] / 3600
    lines["cost"] = f"{hours:,.3g} {each[1]}-hours"
    lines["network calls"] = f"{learnt:,} in training, {calls:,} in evaluations and grids"
    return lines


def _predictions(config: Config) -> int:
    """Of an image in a step of its sampler."""
    return 1 + (config.eval.guidance_mode == "cfg" and any(config.eval.guidance))


def disk_megabytes(config: Config, checkpoint: float) -> float:
    """Of a run's checkpoints at most, each so many: the newest, two best ones, one in writing.

    And of the averages of two widths (``train.posthoc_every``), two copies of the weights each.
    """
    train = config.train
    kept = train.total_images // train.posthoc_every if train.posthoc_every else 0
    return (train.keep_checkpoints + 3) * checkpoint + kept * checkpoint / 2


def _measure(
    config: Config, image: Manifest | PublishedSet, device: torch.device
) -> tuple[float, float]:
    """Seconds an image of the network's forward pass, and of forward and backward.

    On a CPU a large network is not run but counted, by the speed of a small one like it.
    """
    spec = network_spec(config, image)
    learnt = per_rank(config.train.batch_size, config.cluster.ranks)
    made = config.eval.chunk_size or usual_chunk_size(spec, device.type == "cuda")
    most = learnt, made * _predictions(config)
    flops = _flops(spec)
    if device.type == "cuda" or flops < LARGE_FLOPS:
        return _time(spec, config, device, most)
    small = replace(spec, model=YARDSTICK, channels=3, image_size=16, augment=False)
    forward_s, both_s = _time(small, config, device, (4, 4))
    ratio = flops / _flops(small)
    return ratio * forward_s, ratio * both_s


@cache
def _flops(spec: NetworkSpec) -> int:
    """Of products and convolutions, forward and backward, an image; counted, not run."""
    with shapes_only(), FlopCounterMode(display=False) as counted:
        net = build(spec)
        x = torch.zeros(1, spec.channels, spec.image_size, spec.image_size)
        net(x, torch.ones(1), torch.zeros(1, dtype=torch.int64)).sum().backward()
    return int(counted.get_total_flops())


def _time(
    spec: NetworkSpec, config: Config, device: torch.device, most: tuple[int, int]
) -> tuple[float, float]:
    """As ``_measure``, by running the network on up to ``most`` images, learnt and made."""
    form = torch.channels_last if config.train.channels_last else torch.contiguous_format
    net: nn.Module = build(spec).to(device).to(memory_format=form)
    set_trainable(net, config.train.trainable)
    bf16 = config.train.precision == "bf16"

    def once(n: int, *, backward: bool) -> float:
        x = torch.randn(n, spec.channels, spec.image_size, spec.image_size, device=device)
        x = x.to(memory_format=form)
        y = torch.zeros(n, dtype=torch.int64, device=device)
        began = time.perf_counter()
        with (
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16),
            torch.set_grad_enabled(backward),
        ):
            out = net(x, torch.ones(n, device=device), y)
        if backward:
            out.float().square().mean().backward()
        out.sum().item()  # waits for the device
        return time.perf_counter() - began

    def each(most: int, *, backward: bool) -> float:
        """Seconds of one of as many images as take long enough together."""
        n = 1
        while True:
            taken = min(once(n, backward=backward) for _ in range(REPEATS))
            if taken >= LONG_S or n == most:
                return taken / n
            n = min(2 * n, most)

    once(1, backward=True)
    return each(most[1], backward=False), each(most[0], backward=True)
