"""How often classes are shown, as a function of the share of a run that is over.

    0.5                 all along
    1,0.5@0.6           1, and from 0.6 of the run's images on 0.5: deferred re-sampling
                        (DRS; Cao et al., 2019, LDAM-DRW)
    1@0,0.5@0.6,0@0.8   the same with a further change

A change at share s comes with image round(s * total_images), counted over all workers.
"""

import re
from typing import NamedTuple

from cbdm_scale.storage.checks import as_typed

Exposure = float | str
"""A number from 0 to 1, or a schedule of such numbers as above."""


class Change(NamedTuple):
    """A value, and the share of the run from which on it holds."""

    value: float
    share: float


class Part(NamedTuple):
    """A stretch of a run with one exposure."""

    start: int
    """Its first image, counted since the run began."""

    power: float
    balanced_fraction: float

    @property
    def is_plain(self) -> bool:
        """Whether every sample comes once an epoch."""
        return self.power == 1 and self.balanced_fraction == 0


def parse_exposure(option: str, exposure: Exposure, usual: float) -> tuple[Change, ...]:
    """The changes of a schedule, the first at share 0, without those that change nothing.

    ValueError names the option, its value and a way out; ``usual`` is what it mostly has.
    """
    if not isinstance(exposure, str):
        exposure = as_typed(exposure)
    flag = "--" + option.replace("_", "-")
    way_out = f"Try {flag} {usual:g}, or {flag} {usual:g},0.5@0.6: 0.5 from 0.6 of the run on."
    changes: list[Change] = []
    for word in re.split(r"[\s,]+", exposure.strip()):
        wrong = ""
        try:
            value, at, share = word.partition("@")
            change = Change(float(value), float(share) if at or changes else 0.0)
        except ValueError:
            wrong = "be a number from 0 to 1, or several as VALUE@SHARE"
        else:
            if not 0 <= change.value <= 1:
                wrong = "be from 0 to 1"
            elif not changes and change.share != 0:
                wrong = "say what holds from share 0 on"
            elif changes and not changes[-1].share < change.share < 1:
                wrong = "have shares of the run that rise, below 1"
        if wrong:
            raise ValueError(f"{option} must {wrong}, got {exposure}. {way_out}")
        changes.append(change)
    return tuple(c for i, c in enumerate(changes) if not i or c.value != changes[i - 1].value)


def canonical_exposure(changes: tuple[Change, ...]) -> Exposure:
    """The shortest spelling: a number where nothing changes, else "1,0.5@0.6"."""
    if len(changes) == 1:
        return changes[0].value
    later = (f"{as_typed(c.value)}@{as_typed(c.share)}" for c in changes[1:])
    return ",".join([as_typed(changes[0].value), *later])


def exposure_parts(
    power: Exposure, balanced_fraction: Exposure, total_images: int
) -> tuple[Part, ...]:
    """The parts of a run of so many images, the first at image 0.

    ValueError where two changes, or one and an end of the run, fall on one image.
    """
    options = {"resample_power": (power, 1.0), "balanced_fraction": (balanced_fraction, 0.0)}
    values: list[dict[int, float]] = []
    for name, (exposure, usual) in options.items():
        at: dict[int, float] = {}
        for change in parse_exposure(f"data.{name}", exposure, usual):
            image = round(change.share * total_images)
            if image in at or image >= total_images:
                raise ValueError(
                    f"data.{name} ({exposure}) changes at share {change.share:g}, which is "
                    f"image {image:,} of train.total_images ({total_images:,}), where the run "
                    "ends or another value begins. Move the share, or show more images."
                )
            at[image] = change.value
        values.append(at)
    parts, now = [], [0.0, 0.0]
    for start in sorted(set().union(*values)):
        now = [at.get(start, before) for at, before in zip(values, now, strict=True)]
        parts.append(Part(start, *now))
    return tuple(parts)
