"""Averages of the weights of any width, found after training (EDM2: Karras et al., 2024, S 3).

Two averages with power-function profiles run beside training and are kept now and then. A
profile of another width is nearly a sum of theirs, so that its average is the same sum of the
kept ones. Time counts images. Shapes: S = kept averages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cbdm_scale.storage.checks import check_value
from cbdm_scale.training.ema import RunningAverage
from cbdm_scale.training.options import Width

WIDTHS = 0.05, 0.1
"""Relative widths sigma_rel of the two averages that run beside training, as published."""


def gamma_of(width: float) -> float:
    """The exponent of a profile whose relative standard deviation is ``width``.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), solved for its largest gamma.
    """
    check_value("width", width, Width)
    per = width**-2  # (gamma + 2)^2 (gamma + 3) = per (gamma + 1), multiplied out
    return float(np.roots([1, 7, 16 - per, 12 - per]).real.max())


@dataclass(frozen=True)
class Profile:
    """Weights w(tau) = (gamma + 1) tau^gamma / time^(gamma + 1) of an average's past."""

    width: float
    time: int
    """Images shown when it was kept: tau runs from 0 to here."""

    def overlap(self, other: "Profile") -> float:
        """The integral of the product of both over their common past, in units of 1 / image."""
        early, late = sorted((self, other), key=lambda p: p.time)
        a, b = gamma_of(early.width), gamma_of(late.width)
        share = (early.time / late.time) ** b / late.time
        return float((a + 1) * (b + 1) / (a + b + 1) * share)


def combination(kept: Sequence[Profile], wanted: Profile) -> NDArray[np.float64]:
    """Factors (S,) whose sum of kept profiles is nearest to the wanted one (least squares)."""
    scale = wanted.time  # so that the numbers are near 1
    gram = np.array([[a.overlap(b) * scale for b in kept] for a in kept])
    aim = np.array([a.overlap(wanted) * scale for a in kept])
    factors: NDArray[np.float64] = np.linalg.lstsq(gram, aim)[0]
    return factors


class PowerEMA:
    """A running average with a power-function profile (EDM2, Equation 4 in images)."""

    varies = True
    """The decay is another in every step."""

    def __init__(self, net: nn.Module, width: float):
        self.width, self.gamma = width, gamma_of(width)
        self.averages = {name: p.detach().clone() for name, p in net.named_parameters()}
        self.running = RunningAverage(self.averages.values())

    def decay(self, images_seen: int, batch_size: int) -> float:
        """Weight of the old average in a step that ends at ``images_seen``; 0 in the first."""
        return float(max(0.0, 1 - batch_size / images_seen) ** (self.gamma + 1))


def start_averages(net: nn.Module, wanted: bool) -> tuple[PowerEMA, ...]:
    """The averages that run beside training, or none."""
    return tuple(PowerEMA(net, width) for width in WIDTHS) if wanted else ()


def pack(averages: Iterable[PowerEMA]) -> dict[str, Tensor]:
    """All of them as one dictionary, "<width>/<parameter>"."""
    return {f"{a.width:g}/{name}": t for a in averages for name, t in a.averages.items()}


def unpack(averages: Iterable[PowerEMA], tensors: dict[str, Tensor]) -> None:
    """The inverse of ``pack``; KeyError if one is missing."""
    for average in averages:
        for name, here in average.averages.items():
            here.copy_(tensors[f"{average.width:g}/{name}"])
