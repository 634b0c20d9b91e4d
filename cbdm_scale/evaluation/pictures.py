"""The images that a report shows: a few classes, real, generated, and nearest in training.

Shapes: k = classes shown, n = images of each, (C, H, W) an image.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.sources import Images

if TYPE_CHECKING:
    from cbdm_scale.evaluation.report.images import ReportImages


def report_images(inputs: Inputs, evaluation: Evaluation) -> "ReportImages":
    """Of the set with the smallest FID: the pixels of its ``examples``."""
    from cbdm_scale.evaluation.report.images import ReportImages

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
