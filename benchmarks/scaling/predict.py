"""Predicted efficiency of every preset on 8 to 512 GPUs, as tables and as a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.curves import Panel, save_png
from benchmarks.scaling.counts import Counted, count_presets
from benchmarks.scaling.model import (
    compute_seconds,
    divides,
    efficiency,
    grown_lr,
    reduce_seconds,
    speedup,
)
from benchmarks.scaling.published import LAUNCH_S, PLACES, REACHED, UTILISATION, Place
from benchmarks.timing import markdown

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
RECIPES = "cifar100_lt cbdm", "imagenet_lt cbdm", "cifar100_lt cbdm_edm"


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
    head = "presets", "parameters M", "predictions an image", "GFLOP an image", "kernels"
    rows = [
        (
            ", ".join(c.names),
            f"{c.parameters / 1e6:.2f}",
            f"{c.predictions:.2f}",
            f"{c.work.flops_per_image / 1e9:.3g}",
            c.work.kernels,
            f"{c.work.gradient_bytes / 1e6:.1f}",
            c.work.buckets,
        )
        for c in counted
    ]
    return markdown([*head, "gradients MB", "buckets"], rows)


def shared_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch shared out: speed-up over one GPU (efficiency), "-" if it cannot be."""
    rows = []
    for c in counted:
        batch, cells = c.config.train.batch_size, []
        for gpus in GPUS:
            s = speedup(c.work, place.device, place.network, gpus, batch, grown=False)
            cells.append(f"{s:.1f}x ({s / gpus:.0%})" if divides(batch, gpus) else "-")
        alone = compute_seconds(c.work, place.device, batch)
        rows.append([c.names[0], batch, f"{alone * 1e3:.1f}", *cells])
    return markdown(["preset", "batch", "one GPU ms", *GPUS], rows)


def grown_table(counted: Iterable[Counted], place: Place) -> str:
    """The paper's batch on every GPU: efficiency."""
    rows = []
    for c in counted:
        work, batch = c.work, c.config.train.batch_size
        found = [
            efficiency(work, place.device, place.network, gpus, batch, grown=True)
            for gpus in GPUS
        ]
        reduce = reduce_seconds(work, place.network, 512)
        rows.append([c.names[0], batch, f"{reduce * 1e3:.1f}", *(f"{e:.1%}" for e in found)])
    return markdown(["preset", "images a GPU", "all-reduce of 512 ms", *GPUS], rows)


def recipe_table(counted: Counted) -> str:
    """What a batch that grows with the GPUs asks of the recipe of one preset."""
    train, rows = counted.config.train, []
    for gpus in (1, *GPUS):
        batch = train.batch_size * gpus
        rates = [f"{grown_lr(train.lr, gpus, rule):.2g}" for rule in ("sqrt", "linear")]
        steps = [f"{images // batch:,}" for images in (train.total_images, train.warmup_images)]
        rows.append([gpus, f"{batch:,}", steps[0], *rates, steps[1]])
    head = "batch", "steps of the same images", "lr, square root", "lr, linear", "warm-up steps"
    return markdown([f"{counted.names[0]}: GPUs", *head], rows)


def draw(counted: Sequence[Counted], folder: str) -> Path:
    """Efficiency over GPUs, one panel a network, written to <folder>/scaling.png."""
    panels = []
    for grown in (False, True):
        for place in PLACES:
            series = {}
            for c in counted:
                batch = c.config.train.batch_size
                series[f"{c.names[0]} (batch {batch})"] = [
                    (g, efficiency(c.work, place.device, place.network, g, batch, grown=grown))
                    for g in (1, 2, 4, *GPUS)
                    if grown or divides(batch, g)
                ]
            y = "efficiency, " + ("batch on every GPU" if grown else "batch shared out")
            panels.append(Panel(title=place.name, x="GPUs", y=y, series=series, log_x=True))
    target = Path(folder).expanduser() / "scaling.png"
    save_png(panels, len(PLACES), target)
    return target


def run(hidden: float, picture: str) -> None:
    """Print all tables; hidden: measured share of the communication that can hide."""
    counted = [
        replace(c, work=replace(c.work, hidden=hidden * c.work.hidden)) for c in count_presets()
    ]
    print(assumptions(hidden), "\n")
    print(presets_table(counted))
    for place in PLACES:
        print(f"\n{place.name}: the preset's batch shared out\n")
        print(shared_table(counted, place))
        print(f"\n{place.name}: the preset's batch on every GPU\n")
        print(grown_table(counted, place))
    by_name = {name: c for c in counted for name in c.names}
    for name in RECIPES:
        print("\n" + recipe_table(by_name[name]))
    if picture:
        print(f"\n{draw([by_name[name] for name in SHOWN], picture)}")
