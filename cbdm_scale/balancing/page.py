"""balance.html: one file that loads nothing. Of each kind of image the first ones are shown.

Shapes: n = images of a strip, (C, H, W) an image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cbdm_scale.balancing.inputs import Inputs
from cbdm_scale.balancing.rounds import Found, Round
from cbdm_scale.evaluation.report.images import SMALL, data_url
from cbdm_scale.evaluation.report.rendering import render_page

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CLASSES = 30
"""With strips of images: those that lacked most, and those that stay short."""
STRIP = 8
WHY = {
    "label": "no sure sign of the class",
    "copies": "nearly a training image",
    "outliers": "far from the class's training images",
    "duplicates": "nearly a generated image taken before",
    "spare": "good, and not needed",
}


@dataclass(frozen=True)
class ClassStrips:
    """The images of a class that are shown."""

    name: str
    group: str
    label: int
    strips: tuple[tuple[str, tuple[str, ...]], ...]
    """(what they are, images as URLs)"""


def write_page(inputs: Inputs, found: Found) -> str:
    """The text of the page."""
    real = inputs.real
    rows: list[dict[str, Any]] = []
    for c in sorted(range(real.num_classes), key=lambda c: (-real.counts["train"][c], c)):
        reasons = found.reasons(c)
        rows.append(
            {
                "label": c,
                "name": real.class_names[c],
                "group": real.groups[c],
                "real": real.counts["train"][c],
                "need": inputs.need[c],
                "accepted": found.accepted[c],
                "made": sum(reasons.values()),
                "rejected": {r: n for r, n in reasons.items() if r not in ("", "spare")},
                "basis": found.thresholds.basis[c],
                "label_limit": float(found.thresholds.label[c]),
                "near": float(found.thresholds.near[c]),
                "far": float(found.thresholds.far[c]),
            }
        )
    short = [row for row in rows if row["accepted"] < row["need"]]
    return render_page(
        "balance.html.j2",
        {},
        folder=TEMPLATES,
        inputs=inputs,
        found=found,
        rows=rows,
        short=short,
        advice=[advice(inputs, found, row["label"]) for row in short],
        without=[
            n for n, k in zip(real.class_names, real.counts["train"], strict=True) if not k
        ],
        largest=max(real.counts["train"][c] + found.accepted[c] for c in range(len(rows))),
        filters=inputs.options.asked,
        why=WHY,
        shown=_strips(inputs, found),
        pixelated=real.image_size <= SMALL,
    )


def advice(inputs: Inputs, found: Found, label: int) -> str:
    """What to do for a class that stays short, in a sentence."""
    name = inputs.real.class_names[label]
    reasons = found.reasons(label)
    made = sum(reasons.values())
    rejected = {r: n for r, n in reasons.items() if r not in ("", "spare")}
    start = f"{name}: {found.accepted[label]:,} of {inputs.need[label]:,} after {made:,} images"
    if not rejected:
        return f"{start}. Raise --most."
    worst = max(rejected, key=lambda reason: rejected[reason])
    larger = "a larger --guidance for it"
    if inputs.plan.guidance_mode == "tcfg":
        most = inputs.plan.network.omega_max
        larger += f" (by one call up to {most:g}, more with --guidance-mode cfg)"
    way_out = {
        "label": f"its images show other classes: {larger}, a longer run, or a classifier that "
        "knows the class (--classifiers)",
        "copies": "the network repeats its training images: an earlier checkpoint, a lower "
        "--guidance, or more real images",
        "outliers": f"its images are far from the real ones: {larger}, or a longer run",
        "duplicates": "the network makes the same images again: a lower --guidance, or a "
        "smaller --to",
    }[worst]
    share = rejected[worst] / made
    return f"{start}, {share:.0%} rejected by {worst}; {way_out}."


def _strips(inputs: Inputs, found: Found) -> list[ClassStrips]:
    real = inputs.real
    lacking = [c for c in range(real.num_classes) if inputs.need[c]]
    by_need = sorted(
        lacking, key=lambda c: (found.accepted[c] - inputs.need[c], -inputs.need[c])
    )
    shown = []
    for c in by_need[:SHOWN_CLASSES]:
        strips = []
        taken = _first(found, c, "")
        if taken:
            near = [int(one.verdicts.nearest[i]) for one, i in taken]
            strips.append(("accepted", _urls(_made(taken))))
            nearest = torch.from_numpy(inputs.train.read(near))
            strips.append(("nearest training image of each", _urls(nearest)))
        for reason in inputs.options.asked:
            if out := _first(found, c, reason):
                strips.append((f"rejected: {WHY[reason]}", _urls(_made(out))))
        shown.append(ClassStrips(real.class_names[c], real.groups[c], c, tuple(strips)))
    return shown


def _first(found: Found, label: int, reason: str) -> list[tuple[Round, int]]:
    images = found.images(label, [reason])
    return [pair for pair, _ in zip(images, range(STRIP), strict=False)]


def _made(chosen: list[tuple[Round, int]]) -> Tensor:
    """(n, C, H, W) uint8"""
    return torch.stack([torch.from_numpy(one.images.read([i])[0]) for one, i in chosen])


def _urls(images: Tensor) -> tuple[str, ...]:
    return tuple(data_url(image) for image in images)
