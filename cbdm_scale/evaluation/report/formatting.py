"""Numbers as a reader wants them: as many digits as the interval lets one believe."""

from collections.abc import Sequence
from math import floor, log10

from cbdm_scale.metrics.intervals import Interval

KID_SCALE = 1000
"""KID is written times 1,000, as most papers do; metrics.json holds it as it is."""

LONGEST_NAME = 80
"""Letters of a class name that are shown."""


def number(x: float) -> str:
    """Three significant digits without exponent: 4.52, 0.0312, 1,280."""
    if abs(x) < 5e-7:
        return "0"
    decimals = 2 - floor(log10(abs(x)))
    return _fixed(x, min(max(decimals, 0), 6))


def interval(found: Interval) -> tuple[str, str]:
    """(value, "low to high") with the digits that the width of the interval allows.

    Without ends where they are not known.
    """
    if not found.is_known:
        return number(found.value), ""
    half = (found.high - found.low) / 2
    if half <= 0:
        return number(found.value), f"{number(found.low)} to {number(found.high)}"
    decimals = min(max(-floor(log10(half)), 0), 6)
    low, high = _fixed(found.low, decimals), _fixed(found.high, decimals)
    return _fixed(found.value, decimals), f"{low} to {high}"


def with_interval(found: Interval) -> str:
    """4.5 [4.1, 4.9]."""
    value, ends = interval(found)
    return f"{value} [{ends.replace(' to ', ', ')}]" if ends else value


def scaled(found: Interval, factor: float) -> Interval:
    """The interval of a multiple, such as KID times 1,000."""
    return Interval(found.value * factor, found.low * factor, found.high * factor)


def kid_1000(found: Interval | None) -> Interval | None:
    """KID as it is written, times 1,000; None stays None."""
    return scaled(found, KID_SCALE) if found else None


def percent(share: float) -> str:
    """A share as 82 %, with a decimal near the ends; 0 % and 100 % only where it is exact."""
    hundred = 100 * share
    if 0 < hundred < 0.05:
        return "< 0.1 %"
    if 99.95 <= hundred < 100:
        return "> 99.9 %"
    near_an_end = min(hundred, 100 - hundred) < 9.95
    exact = hundred in (0, 100)
    return f"{hundred:.{1 if near_an_end and not exact else 0}f} %"


def percent_interval(found: Interval) -> tuple[str, str]:
    """The same as ``interval`` for a share: ("82 %", "81 to 83 %")."""
    value, ends = interval(scaled(found, 100))
    return f"{value} %", ends and f"{ends} %"


def thousands(count: int) -> str:
    """12,800."""
    return f"{count:,}"


def apart(a: Interval, b: Interval) -> bool:
    """Whether two intervals have no point in common."""
    return a.high < b.low or b.high < a.low


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class, or its number where it has none."""
    name = names[label] if 0 <= label < len(names) else ""
    return name.strip() or f"class {label}"


def short_name(name: str) -> str:
    """A name not longer than it can be read; the cut is an ellipsis."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _fixed(x: float, decimals: int) -> str:
    text = f"{x:,.{decimals}f}"
    return text.removeprefix("-") if not any(d in text for d in "123456789") else text
