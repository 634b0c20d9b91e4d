"""Is everything right on the device: the same numbers as on the CPU, to stated tolerances?"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from benchmarks.gpu.context import (
    COUNTS,
    NUM_CLASSES,
    Context,
    awake,
    difference,
    fresh,
    ieee,
    make_batch,
    recorded_warnings,
)
from benchmarks.gpu.loop import callbacks, new_state
from benchmarks.step import micro_batches
from cbdm_scale.data.loader import Batch
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.options import NoiseConfig, ProcessName
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import BACKBONES, UNetConfig, backbone_config
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.generate import Sampler
from cbdm_scale.sampling.options import SamplerConfig, SamplerName
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import OneProcess
from cbdm_scale.training.gradients import ClippedAdam, backward
from cbdm_scale.training.loop import TrainInputs, train
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.power_ema import start_averages
from cbdm_scale.training.state import State, load_newest, save_checkpoint

CPU = torch.device("cpu")
SMALL = {
    "unet": {"channels": 64, "multipliers": (1, 2), "num_blocks": 1},
    "ddpmpp": {"channels": 64, "multipliers": (1, 2), "num_blocks": 1},
    "ncsnpp": {"channels": 64, "multipliers": (1, 2), "num_blocks": 1},
    "dit": {"depth": 4, "width": 192, "heads": 3},
    "vit": {"depth": 4, "width": 192, "heads": 6},
}
TINY = {
    "unet": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1, "groups": 8},
    "ddpmpp": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1},
    "ncsnpp": {"channels": 16, "multipliers": (1, 2), "num_blocks": 1},
    "dit": {"depth": 1, "width": 32, "heads": 2},
    "vit": {"depth": 1, "width": 32, "heads": 2},
}
LOSSES = {
    "ddpm": LossConfig(name="ddpm"),
    "cbdm": LossConfig(),
    "cbdm of a quarter": LossConfig(reg_share=0.25),
    "ddpm+tcfg": LossConfig(name="ddpm", tcfg=True),
    "cbdm+tcfg": LossConfig(tcfg=True),
}
LIMITS = {"fp32": 2e-4, "tf32": 1e-2, "bf16": 8e-2}
"""Largest |g - g_cpu| / |g_cpu| of a gradient g against the CPU's in fp32."""


def gradient(
    net: nn.Module,
    loss: LossConfig,
    process: ProcessName,
    device: torch.device,
    precision: str,
    batch: Batch,
) -> tuple[dict[str, Tensor], Tensor]:
    """The product's terms (N,) by name and its gradient, flat, on the CPU in float64."""
    net = net.to(device, memory_format=torch.channels_last).train()
    noise = build_process(NoiseConfig(process=process), device)
    objective, draw = build_loss(loss, noise, COUNTS, 0, len(batch.y))
    parts = micro_batches(batch, draw, device)
    (terms,) = backward(net, objective, parts, OneProcess(str(device)), precision=precision)
    unused = [name for name, p in net.named_parameters() if p.grad is None]
    assert not unused, f"unused parameters: {unused[:3]}"
    flat = torch.cat([p.grad.flatten().cpu().double() for p in net.parameters()])
    return {name: v.detach().cpu().double() for name, v in terms.items()}, flat


def right(context: Context) -> None:
    """Random numbers, gradients of every backbone and loss, the optimiser, the samplers."""
    random_numbers(context)
    gradients(context)
    with context.guarded("right: repeated"):
        repeated(context)
    with context.guarded("right: step"):
        optimiser(context)
    with context.guarded("right: samplers"):
        samplers(context)


def random_numbers(context: Context) -> None:
    images = torch.arange(64) * 12345
    there = images.to(context.device)
    words = rng.bits(3, "noise", images, 1024)
    same = words.equal(rng.bits(3, "noise", there, 1024).cpu())
    context.note("right", "random words equal", same)
    off = rng.normal(3, "noise", images, 3072) - rng.normal(3, "noise", there, 3072).cpu()
    context.note("right", "normal numbers, largest difference", float(off.abs().max()))


def gradients(context: Context) -> None:
    """Every backbone, process and loss against the CPU in fp32; the paper's U-Net too."""
    worst: dict[str, float] = defaultdict(float)
    rows: dict[str, dict[str, float]] = {}
    names: list[tuple[str, ProcessName]] = [(b, "ddpm") for b in BACKBONES]
    names += [(b, "edm") for b in BACKBONES]
    if not context.tiny:
        names.append(("paper", "ddpm"))
    for backbone, process in names:
        for title, loss in LOSSES.items():
            if backbone == "paper" and title not in ("ddpm", "cbdm"):
                continue
            if context.tiny and title != ("cbdm+tcfg" if process == "ddpm" else "ddpm"):
                continue
            key = f"{backbone} {process} {title}"
            with context.guarded(f"right: {key}"):
                rows[key] = compared(context, backbone, process, loss)
                for what, value in rows[key].items():
                    worst[what] = max(worst[what], value)
    context.bench.figures.setdefault("right", {})["gradients"] = rows
    for what, value in worst.items():
        context.note("right", f"worst gradient difference, {what}", float(f"{value:.2e}"))
        with context.guarded(f"right: {what}"):
            assert value < LIMITS[what], f"{value:.2e} is not below {LIMITS[what]:g}"


def compared(
    context: Context, backbone: str, process: ProcessName, loss: LossConfig
) -> dict[str, float]:
    """Differences of the gradients by precision."""
    n, nine = (4 if context.tiny else 6), backbone == "ddpmpp"
    if backbone == "paper":
        spec = context.spec(dropout=0.0)
    else:
        options = (TINY if context.tiny else SMALL)[backbone]
        spec = NetworkSpec(
            model=backbone_config(backbone, **options, dropout=0.0),
            channels=3,
            image_size=context.size,
            num_classes=NUM_CLASSES,
            augment=nine,
            omega_max=loss.max_guidance,
        )
    net = awake(fresh(spec))
    batch = make_batch(n, context.size, augment=nine)
    _, expected = gradient(deepcopy(net), loss, process, CPU, "fp32", batch)
    found = {}
    for what, precision in (("fp32", "fp32"), ("tf32", "fp32"), ("bf16", "bf16")):
        with ieee(what == "fp32"):
            terms, g = gradient(deepcopy(net), loss, process, context.device, precision, batch)
        assert all(v.isfinite().all() for v in terms.values()), f"{what}: not finite"
        found[what] = difference(g, expected)
    return found


def repeated(context: Context) -> None:
    """Do two passes give the same bits, as they are and with cuDNN's deterministic kernels?"""
    net = awake(fresh(context.spec(dropout=0.0)))
    batch = make_batch(4 if context.tiny else 24, context.size)

    def same(precision: str) -> bool:
        passes = [
            gradient(deepcopy(net), LossConfig(), "ddpm", context.device, precision, batch)[1]
            for _ in range(2)
        ]
        return passes[0].equal(passes[1])

    for precision in ("fp32", "bf16"):
        context.note("right", f"a gradient's bits repeat, {precision}", same(precision))
    if not context.is_cuda:
        return
    torch.backends.cudnn.deterministic = True
    context.note("right", "they repeat, bf16, cudnn.deterministic", same("bf16"))
    torch.use_deterministic_algorithms(True, warn_only=True)
    with recorded_warnings() as found:
        same("bf16")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    without = {str(w.message)[:80] for w in found if "determinis" in str(w.message)}
    context.note("right", "operations without a deterministic form", sorted(without))


def optimiser(context: Context) -> None:
    """Clip, skip, Adam and the averages, four steps of which the third is skipped."""
    ends = []
    for device in (CPU, context.device):
        state = new_state(small_net().to(device), lr=1e-3)
        net, posthoc = state.net, start_averages(state.net, True)
        update = ClippedAdam(state.optimizer, 1.0)
        g = torch.Generator().manual_seed(5)
        for step in range(4):
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=g).to(device)
            first = next(net.parameters())
            if step == 2:
                first.grad.view(-1)[0] = math.inf
            before = first.detach().clone()
            norm = update.step(1e-3)
            skipped = before.equal(first.detach())
            assert bool(norm.isfinite()) != skipped == (step == 2), f"step {step}"
            state.ema.update(net, 64 * step + 64, 64)
            for average in posthoc:
                average.update(net, 64 * step + 64, 64)
        counted = {float(s["step"]) for s in state.optimizer.state.values()}
        assert counted == {3.0}, f"steps counted: {counted}"
        everything = [*net.parameters(), *state.ema.net.parameters()]
        everything += posthoc[0].averages.values()
        ends.append(torch.cat([p.detach().flatten().cpu() for p in everything]))
    off = difference(ends[1], ends[0])
    context.note("right", "Adam, averages and skip: difference from the CPU", off)


def samplers(context: Context) -> None:
    """Images of every sampler: how far from the CPU's, and the same bytes again?"""
    net = awake(fresh(context.spec(dropout=0.0))).eval().requires_grad_(False)
    plans: list[tuple[SamplerName, int, float]] = [
        ("ddpm", 10, 0.0),
        ("ddim", 10, 0.5),
        ("dpm", 10, 0.0),
        ("heun", 5, 0.0),
    ]
    for name, steps, eta in plans:
        made = []
        for device in (CPU, context.device, context.device):
            process: ProcessName = "edm" if name == "heun" else "ddpm"
            sampler = Sampler(
                shape=(3, context.size, context.size),
                null_label=NUM_CLASSES,
                process=build_process(NoiseConfig(process=process), device),
                config=SamplerConfig(name=name, num_steps=steps, eta=eta),
                seed=0,
            )
            samples = torch.arange(4, device=device)
            with ieee(), torch.no_grad():
                x = sampler.generate(deepcopy(net).to(device), samples, samples, 1.0)
            made.append(to_uint8(x).cpu().int())
        off = (made[0] - made[1]).abs()
        found = {
            "largest difference": int(off.max()),
            "share that differs": round(float((off > 0).double().mean()), 5),
            "the same bytes again": made[1].equal(made[2]),
        }
        context.note("right", f"{name}: pixels (of 255) against the CPU's", found)


# ---------------------------------------------------------------------------- pieces


def small_net() -> nn.Module:
    model = UNetConfig(channels=16, multipliers=(1, 2), num_blocks=1, groups=8, dropout=0.1)
    spec = NetworkSpec(model=model, channels=3, image_size=8, num_classes=NUM_CLASSES)
    return fresh(spec)


def pieces(context: Context) -> None:
    """Training that goes on, evaluation, recognition and NCCL, each in its smallest form."""
    for piece in (resumed, evaluated, recognised, reduced):
        with context.guarded(f"pieces: {piece.__name__}"):
            piece(context)


def resumed(context: Context) -> None:
    """A run that was saved and went on ends as the one that never stopped."""

    def start() -> State:
        net = small_net().to(context.device, memory_format=torch.channels_last)
        return new_state(net, lr=1e-3, posthoc=True)

    def go_on(state: State, total: int) -> list[dict[str, float]]:
        def source() -> Iterator[Batch]:
            i = state.progress.num_seen
            while True:
                yield make_batch(16, 8, i)
                i += 16

        said: list[dict[str, float]] = []
        process = build_process(NoiseConfig(), context.device)
        objective, draw = build_loss(LossConfig(), process, COUNTS, 0, 16)
        config = TrainConfig(
            total_images=total,
            batch_size=16,
            micro_batch=5,
            log_every=32,
            save_every=10**9,
            sample_every=0,
            eval_every=0,
        )
        inputs = TrainInputs(objective, draw, source(), 0, lambda n: 0.0)
        report = callbacks(report=lambda state, numbers: said.append(numbers))
        train(state, inputs, config, OneProcess(str(context.device)), report)
        return said

    whole, first, second = start(), start(), start()
    said = go_on(whole, 96)
    go_on(first, 48)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Storage(folder), first, {})
        name, damaged = load_newest(Storage(folder), second)
    assert name and not damaged
    go_on(second, 96)
    pairs = zip(whole.net.parameters(), second.net.parameters(), strict=True)
    same = all(a.equal(b) for a, b in pairs)
    context.note("pieces", "a run that was saved and went on ends with the same bits", same)
    context.note("pieces", "loss of a report", round(said[-1]["loss/total"], 4))


def evaluated(context: Context) -> None:
    """Images under bf16, their features, scores by group."""
    from cbdm_scale.data.groups import class_groups
    from cbdm_scale.data.pixels import to_model_range
    from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
    from cbdm_scale.metrics.features import ClassifierRecipe
    from cbdm_scale.metrics.groups import GroupScores, fid_by_group, stored_recall

    torch.manual_seed(0)
    small = SmallClassifier(image_channels=3, image_size=8, num_classes=10)
    extractor = ClassifierRecipe(save_classifier(small), "x").load(context.device)
    sampler = Sampler(
        shape=(3, 8, 8),
        null_label=NUM_CLASSES,
        process=build_process(NoiseConfig(), context.device),
        config=SamplerConfig(num_steps=3),
        seed=0,
        chunk_size=50,
    )
    groups = class_groups([500 - 50 * c for c in range(10)])
    net = awake(small_net()).to(context.device).eval().requires_grad_(False)
    samples = torch.arange(100, device=context.device)
    fake, real = (GroupScores(groups, extractor.dim, 100) for _ in range(2))
    with torch.autocast(context.device.type, dtype=torch.bfloat16):
        x = to_uint8(sampler.generate(net, samples, samples % 10, 1.0)).cpu()
        fake.add(extractor(to_model_range(x)), samples.cpu() % 10, samples.cpu())
    pixels = torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8)
    real.add(extractor(pixels), samples.cpu() % 10, samples.cpu())
    assert math.isfinite(fid_by_group(real, fake)["fid"]) and stored_recall(real, fake)
    context.note("pieces", "evaluation during training", "ok")


def recognised(context: Context) -> None:
    """A few steps of the classifier, and its confusion."""
    import numpy as np

    from cbdm_scale.models.resnet import ResNet32
    from cbdm_scale.recognition.fit import count_confusion, fit
    from cbdm_scale.recognition.options import FitConfig

    class Images:
        count, labels, fingerprint = 300, np.arange(300) % 10, ""

        def read(self, numbers: list[int]) -> np.ndarray:
            return np.zeros((len(numbers), 3, 32, 32), np.uint8)

    def source() -> Iterator[Batch]:
        while True:
            x = torch.rand(32, 3, 32, 32)
            yield Batch(x, torch.arange(32) % 10, torch.arange(32), ("",) * 32, ())

    torch.manual_seed(0)
    net = ResNet32(image_channels=3, image_size=32, num_classes=10).to(context.device)
    world = OneProcess(str(context.device))
    config = FitConfig(batch_size=32, log_every=64)
    done = fit(net, source(), config, 128, world, lambda n, loss: None, lambda: False)
    assert done and int(count_confusion(net, Images(), 10, world).sum()) == 300
    context.note("pieces", "recognition", "ok")


def reduced(context: Context) -> None:
    """NCCL beside gloo, with one rank."""
    if not context.is_cuda:
        return
    import datetime
    import os

    import torch.distributed as dist

    from cbdm_scale.training.distributed import DistributedWorld

    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")
    minute = datetime.timedelta(seconds=60)
    store = dist.TCPStore("127.0.0.1", 0, 1, True, minute)
    torch.cuda.set_device(context.device)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, timeout=minute)
    try:
        world = DistributedWorld(context.device)
        assert world.sum(torch.ones(3).double()).tolist() == [1, 1, 1]
        assert world.gather({"a": 1}) == [{"a": 1}]
        world.broadcast([torch.ones(3, device=context.device)])
        with world.monitored_barrier():
            pass
        us = 1e6 * context.seconds(lambda: world.sum(torch.ones(4).double()), 50)
        context.note("pieces", "us of a sum of four numbers over gloo, one rank", round(us, 1))
        wrapped = nn.parallel.DistributedDataParallel(
            context.net(), device_ids=[0], gradient_as_bucket_view=True
        )
        batch = context.batch(8)
        process = build_process(NoiseConfig(), context.device)
        objective, draw = build_loss(LossConfig(name="ddpm"), process, COUNTS, 0, 8)

        def once(net: nn.Module) -> None:
            net.zero_grad(set_to_none=True)
            parts = micro_batches(batch, draw, context.device)
            list(backward(net, objective, parts, world, precision="bf16"))

        for what, net in (("alone", context.net()), ("under DDP", wrapped)):
            ms = 1e3 * context.seconds(lambda net=net: once(net), 10, 5)
            context.note("pieces", f"ms of a backward of 8 images, {what}", round(ms, 2))
    finally:
        dist.destroy_process_group()
