"""The images that a report shows: a few classes, real, generated, and nearest in training.

Shapes: k = classes shown, n = images of each, (C, H, W) an image, N = images of a set.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cbdm_scale.evaluation.compute import features, train_features
from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.metrics.neighbours import nearest
from cbdm_scale.metrics.sources import Images

if TYPE_CHECKING:
    from cbdm_scale.evaluation.report.images import ReportImages


def report_images(inputs: Inputs, evaluation: Evaluation) -> "ReportImages":
    """Of the set with the smallest FID. Classes that a side has no image of are left out."""
    from cbdm_scale.evaluation.report.images import (
        IMAGES_PER_CLASS,
        ReportImages,
        shown_classes,
    )

    best = evaluation.sets.index(evaluation.best)
    made, real = inputs.sets[best].images, inputs.split("eval")
    fake_features = features(inputs, made, "the report's images")
    sides = [torch.from_numpy(side.labels) for side in (real, made)]
    shown = shown_classes(inputs.real.counts["train"])
    fewest = {c: min(int((y == c).sum()) for y in sides) for c in shown}
    classes = tuple(c for c in shown if fewest[c])
    n = min((fewest[c] for c in classes), default=0)
    rows = [first_rows(y, classes, min(n, IMAGES_PER_CLASS)) for y in sides]
    train, close = train_features(inputs), None
    if train is not None and len(train.labels):
        x = fake_features.pool[rows[1].flatten()]
        found = nearest(x, train.pool, k=1).index[:, 0] if len(x) else rows[1].flatten()
        close = pick(inputs.split("train"), found.view(rows[1].shape), inputs)
    return ReportImages(
        classes, pick(real, rows[0], inputs), pick(made, rows[1], inputs), close
    )


def first_rows(labels: Tensor, classes: tuple[int, ...], n: int) -> Tensor:
    """Where the first n images of each class stand among labels (N,): (k, n) int64."""
    rows = [(labels == c).nonzero().flatten()[:n] for c in classes]
    return torch.stack(rows) if rows else torch.zeros(0, n, dtype=torch.int64)


def pick(images: Images, rows: Tensor, inputs: Inputs) -> Tensor:
    """The images of rows (k, n): (k, n, C, H, W) uint8."""
    real = inputs.real
    shape = (*rows.shape, real.channels, real.image_size, real.image_size)
    if not rows.numel():
        return torch.zeros(shape, dtype=torch.uint8)
    return torch.from_numpy(images.read(rows.flatten().tolist())).view(shape)
