"""The images that a report shows: of which classes, inside the page, and as files.

Shapes: k = classes shown, n = images of each, C = channels (1 or 3), H = height, W = width.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.sources import Images
from cbdm_scale.sampling.grid import class_grid, png_bytes, with_words

SMALL = 64
"""Up to this side an image is shown pixel by pixel."""
LARGEST = 128
"""Larger images are scaled down on the page, not in the PNG files."""


@dataclass(frozen=True)
class ReportImages:
    """Real, generated and nearest training images of a few classes."""

    classes: tuple[int, ...]
    """Their labels, the most frequent first."""

    real: Tensor
    """(k, n, C, H, W) uint8, the first of each class in the eval split."""

    made: Tensor
    """(k, n, C, H, W) uint8, the first of each class in the set with the smallest FID."""

    nearest: Tensor | None = None
    """(k, n, C, H, W) uint8, the training image nearest to each of ``made``, of any class;
    None where training images are not at hand."""

    @property
    def pixelated(self) -> bool:
        """Whether the images are so small that they are shown pixel by pixel."""
        return max(self.real.shape[-2:]) <= SMALL

    def rows(self, place: int) -> dict[str, Tensor]:
        """Title -> (n, C, H, W) uint8 of the class at a place: real, generated, nearest."""
        found = {"real": self.real[place], "generated": self.made[place]}
        if self.nearest is not None:
            found["nearest training image of each"] = self.nearest[place]
        return found

    def grid_files(self) -> dict[str, bytes]:
        """File name -> PNG of a class, every pixel kept: rows real, generated, nearest."""
        files = {}
        scale = max(1, SMALL // max(self.real.shape[-2:]))
        for place, label in enumerate(self.classes):
            rows = list(self.rows(place).values())
            y = torch.cat([torch.full((len(row),), i) for i, row in enumerate(rows)])
            columns = max(1, *(len(row) for row in rows))
            grid = class_grid(
                torch.cat(rows), y, range(len(rows)), columns=columns, scale=scale
            )
            named = with_words(grid, [*self.rows(place)])
            files[f"class_{label:04d}.png"] = png_bytes(named)
        return files


def report_images(inputs: Inputs, evaluation: Evaluation) -> ReportImages:
    """Of the set with the smallest FID: the pixels of its ``examples``."""
    best = evaluation.best
    examples, made = best.examples, inputs.sets[evaluation.sets.index(best)].images
    shape = (inputs.real.channels, inputs.real.image_size, inputs.real.image_size)
    near = [e.nearest for e in examples]
    return ReportImages(
        tuple(e.label for e in examples),
        _pick(inputs.split("eval"), [e.real for e in examples], shape),
        _pick(made, [e.generated for e in examples], shape),
        _pick(inputs.split("train"), near, shape) if near and all(near) else None,
    )


def _pick(images: Images, rows: Sequence[Sequence[int]], shape: tuple[int, int, int]) -> Tensor:
    """The images of rows (k, n): (k, n, C, H, W) uint8."""
    numbers = [number for row in rows for number in row]
    size = (len(rows), len(rows[0]) if rows else 0, *shape)
    if not numbers:
        return torch.zeros(size, dtype=torch.uint8)
    return torch.from_numpy(images.read(numbers)).view(size)


def data_url(image: Tensor) -> str:
    """(C, H, W) uint8 as a PNG inside a URL, or, scaled down, as a JPEG."""
    array = image.cpu().permute(1, 2, 0).squeeze(2).numpy()  # (H, W) grey or (H, W, 3)
    picture = Image.fromarray(array)
    if max(picture.size) <= SMALL:
        return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
