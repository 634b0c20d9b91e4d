"""The images that a report shows, and of which classes.

Shapes: k = classes shown, n = images of each, C = channels (1 or 3), H = height, W = width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReportImages:
    """Real, generated and nearest training images of a few classes."""

    classes: tuple[int, ...]
    """Their labels, the most frequent first; ``shown_classes`` picks them."""

    real: Tensor
    """(k, n, C, H, W) uint8, the first of each class in the eval split."""

    made: Tensor
    """(k, n, C, H, W) uint8, the first of each class in the set with the smallest FID."""

    nearest: Tensor | None = None
    """(k, n, C, H, W) uint8, the training image nearest to each of ``made``, of any class;
    None where training images are not at hand."""

    def __post_init__(self) -> None:
        k = len(self.classes)
        for name, images in (
            ("real", self.real),
            ("made", self.made),
            ("nearest", self.nearest),
        ):
            if images is None:
                continue
            good = images.ndim == 5 and len(images) == k and images.shape[2] in (1, 3)
            if not good or images.dtype != torch.uint8:
                raise ValueError(
                    f"ReportImages.{name} must be ({k}, n, 1 or 3, H, W) uint8 for {k} "
                    f"classes, got {tuple(images.shape)} {images.dtype}"
                )
            if images.shape[2:] != self.real.shape[2:]:
                raise ValueError(
                    f"ReportImages.{name} holds images {tuple(images.shape[2:])} and real "
                    f"{tuple(self.real.shape[2:])}: they must be alike"
                )
        if self.nearest is not None and self.nearest.shape[:2] != self.made.shape[:2]:
            raise ValueError(
                f"ReportImages.nearest holds one image for each of made, got "
                f"{tuple(self.nearest.shape[:2])} for {tuple(self.made.shape[:2])}"
            )
