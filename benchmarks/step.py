"""Seconds per training step: DDPM, CBDM, CBDM with reg_share 0.25, and CBDM the obvious way.

    python -m benchmarks.step [--repetitions 30] [--threads 2] [--raw FILE]
    python -m benchmarks.step --terms --channels 32     DDPM with each further term instead

One process, one network (the paper's U-Net, 100 classes, 32 px), one batch size; every variant
takes one step in turn, in an order shuffled anew each repetition. Ours are the functions that
the train loop calls. The obvious way is CBDM as one writes it down: a network pass for each
label, fp32, one loop over the parameters each for clipping, Adam and the EMA.
"""

import argparse
import copy
from collections.abc import Callable
from itertools import count

import torch
import torch.nn.functional as F

from benchmarks.timing import Bench, arguments, table
from cbdm_scale.config.presets import FURTHER_TERM_ROWS
from cbdm_scale.data.loader import Batch
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.coral import PROJECTION_WIDTH
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training.device_transfer import Transfer
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.gradients import ClippedAdam, backward

NUM_CLASSES, SIZE = 100, 32
COUNTS = torch.tensor([int(500 * 0.01 ** (c / 99)) for c in range(NUM_CLASSES)])
"""Images a class in CIFAR100-LT."""
LR, CLIP, HALFLIFE = 2e-4, 1.0, 443_600.0

OBVIOUS, DDPM = "CBDM, the obvious way", "DDPM"
OURS: dict[str, LossConfig] = {
    DDPM: LossConfig(name="ddpm"),
    "CBDM": LossConfig(name="cbdm"),
    "CBDM, reg_share 0.25": LossConfig(name="cbdm", reg_share=0.25),
}

TERMS: dict[str, LossConfig] = {
    DDPM: OURS[DDPM],
    "CBDM": OURS["CBDM"],
    "second stage": LossConfig(name="ddpm", tcfg=True, tcfg_target="teacher"),
    **{row: LossConfig(name="ddpm", **options) for row, options in FURTHER_TERM_ROWS.items()},
    "ccua_align": LossConfig(name="ddpm", ccua_align=1.0),
    "ccua_contrast": LossConfig(name="ddpm", ccua_contrast=1.0),
}
"""What DDPM costs with the further terms of the presets, and what TCFG's second stage does."""


def new_net(channels: int = 128, omega_max: float = 0.0) -> torch.nn.Module:
    """The paper's U-Net with so many channels."""
    torch.manual_seed(0)
    spec = NetworkSpec(
        model=UNetConfig(channels=channels),
        channels=3,
        image_size=SIZE,
        num_classes=NUM_CLASSES,
        omega_max=omega_max,
    )
    return build(spec)


def batches(batch_size: int, size: int = SIZE) -> Callable[[], Batch]:
    """Batches of one set of pixels, under the numbers of consecutive images."""
    torch.manual_seed(1)
    x0 = torch.rand(batch_size, 3, size, size) * 2 - 1
    y = torch.multinomial(COUNTS.double(), batch_size, replacement=True)
    begins = count(0, batch_size)

    def next_batch() -> Batch:
        sample_ids = torch.arange(batch_size) + next(begins)
        return Batch(x0, y, sample_ids, ("",) * batch_size, ())

    return next_batch


def gradient_step(
    net: torch.nn.Module,
    config: LossConfig,
    world: World,
    batch_size: int,
    *,
    parts: int = 1,
    precision: str = "fp32",
) -> Callable[[], Batch]:
    """The product's gradient of a batch, which comes back, in so many micro-batches."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False) if config.distils else None
    loss, draw = build_loss(config, LinearSchedule(), COUNTS, 0, batch_size, teacher)
    next_batch, size = batches(batch_size), batch_size // parts
    transfer = Transfer(draw, world.device, micro_batch=size, channels_last=True)

    def step() -> Batch:
        batch = next_batch()
        net.zero_grad(set_to_none=True)
        moved = transfer.finish(transfer.begin(batch))
        for _ in backward(net, loss, moved, world, precision=precision):
            pass
        return batch

    return step


def our_steps(
    args: argparse.Namespace, losses: dict[str, LossConfig]
) -> dict[str, Callable[[], None]]:
    """The step of the train loop under each loss, on one network and its moments."""
    net = new_net(args.channels, max(config.max_guidance for config in losses.values()))
    if any(config.coral for config in losses.values()):
        net.add_projection(PROJECTION_WIDTH)
    net = net.to(memory_format=torch.channels_last)
    ema = EMA(net, HALFLIFE)
    update = ClippedAdam(torch.optim.Adam(net.parameters(), lr=LR, fused=True), CLIP)

    def make(config: LossConfig) -> Callable[[], None]:
        gradient = gradient_step(
            net, config, World(), args.batch_size, precision=args.precision
        )

        def step() -> None:
            batch = gradient()
            update.step(LR)
            share = 1 - ema.decay(int(batch.sample_ids[-1]) + 1, args.batch_size)
            ema.running.take(net, share)

        return step

    return {name: make(config) for name, config in losses.items()}


def obvious_step(
    batch_size: int,
    make_net: Callable[[], torch.nn.Module] = new_net,
    device: torch.device | str = "cpu",
    *,
    cbdm: bool = True,
    size: int = SIZE,
) -> Callable[[], None]:
    """Algorithm 1 line by line. The second pass, too, leaves out dropped labels."""
    net = make_net().to(device)
    average = make_net().to(device).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, foreach=False)
    schedule, next_batch = LinearSchedule().to(device), batches(batch_size, size)
    probs = (COUNTS / COUNTS.sum()).to(device)
    decay = 0.5 ** (batch_size / HALFLIFE)

    def step() -> None:
        batch = next_batch()
        x0, y, n = batch.x0.to(device), batch.y.to(device), batch_size
        t = torch.randint(0, schedule.num_steps, (n,), device=device)
        eps = torch.randn_like(x0)
        x_t = schedule.add_noise(x0, t, eps)
        kept = torch.rand(n, device=device) >= 0.1
        e = net(x_t, t, torch.where(kept, y, NUM_CLASSES))
        total = F.mse_loss(e, eps)
        if cbdm and kept.any():
            y_alt = torch.multinomial(probs, int(kept.sum()), replacement=True)
            e_alt = net(x_t[kept], t[kept], y_alt)
            weight = (t[kept] / schedule.num_steps)[:, None, None, None]
            r = weight * (e[kept] - e_alt.detach()) ** 2
            rc = weight * (e[kept].detach() - e_alt) ** 2
            total = total + (r + 0.25 * rc).sum() / e.numel()

        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP, foreach=False)
        optimizer.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), net.parameters(), strict=True):
                a.copy_(a * decay + p * (1 - decay))

    return step


def main() -> None:
    precisions = "bf16", "fp32"
    args = arguments(
        __doc__, batch_size=8, threads=2, channels=128, terms=False, precision=precisions
    )
    torch.set_num_threads(args.threads)
    about = {"threads": args.threads, "batch_size": args.batch_size}
    bench = Bench(args, **about, **{"precision of ours": args.precision})
    variants = our_steps(args, TERMS if args.terms else OURS)
    if not args.terms:
        variants[OBVIOUS] = obvious_step(args.batch_size)
    for step in [*variants.values()] * 2:  # first steps allocate
        step()
    under = [] if args.terms else [OBVIOUS]
    bench.finish(table(bench.compare(variants), over=[DDPM], under=under))


if __name__ == "__main__":
    main()
