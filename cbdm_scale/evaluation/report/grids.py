"""Real images beside generated ones beside their nearest training images, class by class.

Shapes: k = classes shown, n = images of each, C = channels (1 or 3), H = height, W = width.
"""

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from cbdm_scale.evaluation.report.images import ReportImages
from cbdm_scale.evaluation.report.words import badge, class_name, name_html
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.sampling.grid import class_grid, png_bytes

SMALL = 64
"""Up to this side an image is shown pixel by pixel."""
LARGEST = 128
"""Larger images are scaled down on the page, not in the PNG files."""


def grids_html(evaluation: Evaluation, pictures: ReportImages) -> str:
    """A card a class, the most frequent first."""
    return f'<div class="classes">{"".join(_cards(evaluation, pictures))}</div>'


def _cards(evaluation: Evaluation, pictures: ReportImages) -> list[str]:
    rows = {row.label: row for row in evaluation.best.table.classes}
    cards = []
    for place, label in enumerate(pictures.classes):
        row = rows.get(label)
        images = "" if row is None else f"{row.num_train:,} training images"
        group = badge(row.group) if row else ""
        name = class_name(evaluation.class_names, label)
        cards.append(
            f'<figure class="card"><figcaption><h3 class="name clamp">{name_html(name)}</h3>'
            f"<small>{images} {group}</small></figcaption>"
            + "".join(
                f'<p class="rowname">{title}</p>{_row(side[place], f"{title}, {name[:60]}")}'
                for title, side in _sides(pictures)
            )
            + "</figure>"
        )
    return cards


def _sides(pictures: ReportImages) -> list[tuple[str, Tensor]]:
    sides = [("real", pictures.real), ("generated", pictures.made)]
    if pictures.nearest is not None:
        sides.append(("nearest training image of each", pictures.nearest))
    return sides


def _row(images: Tensor, title: str) -> str:
    """Images (n, C, H, W) in one line."""
    from html import escape

    pixels = " pixels" if max(images.shape[-2:]) <= SMALL else ""
    shown = "".join(f'<img alt="" src="{_data_url(image)}">' for image in images)
    return (
        f'<div class="row{pixels}" style="--n:{max(len(images), 1)}" role="img" '
        f'aria-label="{escape(title)}">{shown}</div>'
    )


def _data_url(image: Tensor) -> str:
    """(C, H, W) uint8 as a PNG, or, scaled down, as a JPEG."""
    array = image.cpu().permute(1, 2, 0).squeeze(2).numpy()  # (H, W) grey or (H, W, 3)
    picture = Image.fromarray(array)
    if max(picture.size) <= SMALL:
        return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grid_files(pictures: ReportImages) -> dict[str, bytes]:
    """File name -> PNG of a class, every pixel kept: rows real, generated, nearest."""
    files = {}
    scale = max(1, SMALL // max(pictures.real.shape[-2:]))
    for place, label in enumerate(pictures.classes):
        sides = [side[place] for _, side in _sides(pictures)]
        y = torch.cat([torch.full((len(side),), row) for row, side in enumerate(sides)])
        columns = max(1, *(len(side) for side in sides))
        grid = class_grid(torch.cat(sides), y, range(len(sides)), columns=columns, scale=scale)
        files[f"class_{label:04d}.png"] = png_bytes(grid)
    return files
