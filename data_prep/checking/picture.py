"""A picture of a data set: how long its tail is, and what its head, middle and tail look like.

K = number of classes, C = channels, H = W = image size.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.data.groups import GROUPS, Group
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.data.shards import BadSample, ShardReader

COLOURS: dict[Group, str] = {"many": "#2b6ca3", "medium": "#d98c21", "few": "#b3375e"}
CLASSES_A_BAND = 4
IMAGES_A_CLASS = 12
LONGEST_NAME = 23


def draw(root: str, manifest: Manifest, path: Path) -> None:
    """Write the picture, in the format of the path's suffix."""
    from matplotlib.figure import Figure

    order = sort_classes(manifest.counts["train"])
    bands = choose_classes(order, CLASSES_A_BAND)
    rows = sum(len(classes) for _, classes in bands)
    figure = Figure(figsize=(10, 3.9 + 0.62 * rows + 0.35 * len(bands)), dpi=130)
    heights = [3.9, 0.62 * rows + 0.35 * len(bands)]
    top, sheet = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_counts(top.add_axes((0.09, 0.14, 0.88, 0.68)), manifest, order)
    counts = manifest.counts["train"]
    top.text(0.09, 0.94, manifest.name, fontsize=15, fontweight="bold")
    top.text(
        0.09,
        0.87,
        f"{manifest.num_images('train'):,} training images of {manifest.num_classes} classes, "
        f"{max(counts):,} down to {min(counts):,}; {manifest.image_size} x "
        f"{manifest.image_size} pixels",
        fontsize=9.5,
        color="#444444",
    )
    _draw_sheet(sheet, root, manifest, bands, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path)
    except ValueError as error:  # an unknown suffix
        raise ValueError(f"--out ({path}): {error}. Try --out describe.png.") from None


def sort_classes(counts: tuple[int, ...]) -> NDArray[np.int64]:
    """Classes from the largest to the smallest, equal ones in their own order, (K,)."""
    return np.argsort(-np.asarray(counts, np.int64), kind="stable")


def choose_classes(order: NDArray[np.int64], each: int) -> list[tuple[str, list[int]]]:
    """(band, classes) of head, middle and tail of sorted classes, no class in two of them."""
    k = len(order)
    if k <= 3 * each:
        parts = np.array_split(order, 3)
    else:
        start = (k - each) // 2
        parts = [order[:each], order[start : start + each], order[-each:]]
    named = zip(("head", "middle", "tail"), parts, strict=True)
    return [(name, part.tolist()) for name, part in named if len(part)]


def _draw_counts(axes: Any, manifest: Manifest, order: NDArray[np.int64]) -> None:
    counts = np.asarray(manifest.counts["train"])[order]
    groups = np.asarray(manifest.groups)[order]
    places = np.arange(len(order))
    for group in GROUPS:
        chosen = groups == group
        if not chosen.any():
            continue
        label = f"{group}: {chosen.sum()} classes, {counts[chosen].sum():,} images"
        width = 0.85 if len(order) <= 60 else 1.0
        axes.bar(places[chosen], counts[chosen], width, color=COLOURS[group], label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.7, counts.max() * 2)
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("training images")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    if len(order) <= 20:
        names = [_short(manifest.class_names[c], 11) for c in order]
        axes.set_xticks(places, names, fontsize=8, rotation=30 if len(order) > 12 else 0)
        for place, count in zip(places, counts, strict=True):
            axes.text(place, count * 1.1, f"{count:,}", ha="center", fontsize=8)
    else:
        axes.set_xlabel("classes, from the largest to the smallest")


def _draw_sheet(
    figure: Any, root: str, manifest: Manifest, bands: list[tuple[str, list[int]]], rows: int
) -> None:
    """One row a class: its name and its first images in the order of the shards."""
    index = open_index(root, manifest.name, "train")
    labels = index.labels[np.arange(index.num_samples)]
    reader = ShardReader(root, manifest.name, index)
    height = 1 / (0.62 * rows + 0.35 * len(bands))  # of an inch, in parts of the figure
    top = 1.0
    for name, classes in bands:
        top -= 0.3 * height
        figure.text(0.03, top, name, fontsize=10, fontweight="bold", va="bottom")
        for c in classes:
            top -= 0.62 * height
            group, count = manifest.groups[c], manifest.counts["train"][c]
            place = top + 0.3 * height
            text = _short(manifest.class_names[c], LONGEST_NAME)
            figure.text(0.03, place, text, fontsize=9, va="center")
            figure.text(
                *(0.255, place, f"{count:,}"),
                **{"fontsize": 9, "va": "center", "ha": "right", "color": COLOURS[group]},
            )
            tiles = figure.add_axes((0.27, top + 0.02 * height, 0.70, 0.58 * height))
            tiles.imshow(
                _tiles(reader, np.flatnonzero(labels == c)),
                cmap="gray",
                vmin=0,
                vmax=255,
                aspect="equal",
            )
            tiles.set_anchor("W")
            tiles.axis("off")
        top -= 0.05 * height


def _tiles(reader: ShardReader, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The first 12 images in a row on white, which is as wide for fewer: (h, w, 3)."""
    import torch
    from torchvision.utils import make_grid

    size = reader.image_size
    tiles = torch.full((IMAGES_A_CLASS, 3, size, size), 255, dtype=torch.uint8)
    for i, row in enumerate(rows[:IMAGES_A_CLASS]):
        try:
            tiles[i] = torch.from_numpy(reader.load(int(row)))  # (C, H, W)
        except BadSample:
            tiles[i] = 230  # verify names it
    gap = max(1, round(size / 20))
    grid = make_grid(tiles, nrow=IMAGES_A_CLASS, padding=gap, pad_value=255)
    return np.asarray(grid.permute(1, 2, 0))


def _short(name: str, length: int) -> str:
    cut = name if len(name) <= length else name[: length - 1] + "…"
    return cut.replace("$", r"\$")  # or matplotlib would read a formula
