"""Predicted efficiency of every preset on 8 to 512 GPUs, as tables and as a picture."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from benchmarks.scaling.counts import Counted
from benchmarks.scaling.model import (
    compute_seconds,
    divides,
    efficiency,
    grown_lr,
    reduce_seconds,
    speedup,
)
from benchmarks.scaling.published import LAUNCH_S, PLACES, REACHED, UTILISATION, Place

GPUS = (8, 16, 32, 64, 128, 256, 512)
SHOWN = (
    "cifar100_lt cbdm",
    "cifar100_lt ddpm",
    "cifar100_lt cbdm_vit",
    "imagenet_lt cbdm",
    "cub200 cbdm",
    "cifar100_lt cbdm_edm",
)
"""Presets of the picture."""


def assumptions(hidden: float) -> str:
    lines = [
        f"A GPU computes at {UTILISATION:.0%} of its bf16 peak, or as fast as its kernels "
        f"start ({LAUNCH_S * 1e6:.0f} us each), whichever is slower.",
        f"A network carries {REACHED:.0%} of its peak; gradients are fp32, in DDP's buckets.",
        f"Of the communication that can hide behind the backward pass {hidden:.0%} does.",
        *(f"{place.name}: {place.source}." for place in PLACES),
    ]
    return "\n".join(lines)


def presets_table(counted: Iterable[Counted]) -> str:
    """What was counted."""
    lines = [
        "| presets | parameters M | predictions an image | GFLOP an image | kernels | "
        "gradients MB | buckets |",
        "|---" * 7 + "|",
    ]
    for c in counted:
        w = c.work
        cells = [
            f"{c.parameters / 1e6:.2f}",
            f"{c.predictions:.2f}",
            f"{w.flops_per_image / 1e9:.3g}",
            str(w.kernels),
            f"{w.gradient_bytes / 1e6:.1f}",
            str(w.buckets),
        ]
        lines.append(f"| {', '.join(c.names)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_hidden(counted: Counted, hidden: float) -> Counted:
    """The same with the measured share of what can hide."""
    return replace(counted, work=replace(counted.work, hidden=hidden * counted.work.hidden))


def fixed_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch shared out: speed-up over one GPU (efficiency), "-" if it cannot be."""
    lines = [
        "| preset | batch | one GPU ms | " + " | ".join(map(str, GPUS)) + " |",
        "|---" * (3 + len(GPUS)) + "|",
    ]
    device = place.device(UTILISATION)
    for c in counted:
        batch = c.config.train.batch_size
        cells = [str(batch), f"{compute_seconds(c.work, device, batch) * 1e3:.1f}"]
        for gpus in GPUS:
            if not divides(batch, gpus):
                cells.append("-")
                continue
            s = speedup(c.work, device, place.network, gpus, batch, grown=False)
            cells.append(f"{s:.1f}x ({s / gpus:.0%})")
        lines.append(f"| {c.names[0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def grown_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch on every GPU: efficiency."""
    lines = [
        "| preset | images a GPU | all-reduce of 512 ms | " + " | ".join(map(str, GPUS)) + " |",
        "|---" * (3 + len(GPUS)) + "|",
    ]
    device = place.device(UTILISATION)
    for c in counted:
        batch = c.config.train.batch_size
        cells = [str(batch), f"{reduce_seconds(c.work, place.network, 512) * 1e3:.1f}"]
        for gpus in GPUS:
            e = efficiency(c.work, device, place.network, gpus, batch, grown=True)
            cells.append(f"{e:.1%}")
        lines.append(f"| {c.names[0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recipe_table(counted: Counted) -> str:
    """What a batch that grows with the GPUs asks of the recipe of one preset."""
    train = counted.config.train
    lines = [
        f"| {counted.names[0]}: GPUs | batch | steps of the same images | lr, square root | "
        "lr, linear | warm-up steps |",
        "|---" * 6 + "|",
    ]
    for gpus in (1, *GPUS):
        batch = train.batch_size * gpus
        cells = [
            f"{batch:,}",
            f"{train.total_images // batch:,}",
            f"{grown_lr(train.lr, gpus, 'sqrt'):.2g}",
            f"{grown_lr(train.lr, gpus, 'linear'):.2g}",
            f"{train.warmup_images // batch:,}",
        ]
        lines.append(f"| {gpus} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(counted: Iterable[Counted], folder: str) -> Path:
    """Efficiency over GPUs, one panel a network, written to <folder>/scaling.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = list(counted)
    figure, rows = plt.subplots(
        2, len(PLACES), figsize=(4 * len(PLACES), 7), sharex=True, sharey=True, squeeze=False
    )
    for axes, grown in zip(rows, (False, True), strict=True):
        for axis, place in zip(axes, PLACES, strict=True):
            device = place.device(UTILISATION)
            for c in shown:
                batch = c.config.train.batch_size
                gpus = [g for g in (1, 2, 4, *GPUS) if grown or divides(batch, g)]
                values = [
                    efficiency(c.work, device, place.network, g, batch, grown=grown)
                    for g in gpus
                ]
                axis.plot(gpus, values, marker=".", label=f"{c.names[0]} (batch {batch})")
            axis.set_xscale("log", base=2)
            axis.set_ylim(0, 1.05)
            axis.grid(alpha=0.3)
            axis.set_title(place.name, fontsize=9)
        axes[0].set_ylabel(
            "efficiency, " + ("batch on every GPU" if grown else "batch shared out")
        )
    for axis in rows[1]:
        axis.set_xlabel("GPUs")
    rows[0][0].legend(fontsize=6)
    figure.tight_layout()
    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / "scaling.png", dpi=110)
    plt.close(figure)
    return target / "scaling.png"
