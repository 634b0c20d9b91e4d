"""The table of docs/reliability.md."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.faults.kinds import KINDS

HEAD = (
    "| fault | injected | recovered | images computed twice | seconds without a step | weights |\n"
    "|---|---|---|---|---|---|"
)


def spread(values: list[float]) -> str:
    """Median and, in brackets, the largest."""
    return f"{statistics.median(values):.0f} ({max(values):.0f})"


def row(says: str, faults: list[dict[str, Any]], weights: str) -> str:
    """Of the faults that were proven to have happened."""
    real = [fault for fault in faults if "proof" in fault]
    if not real:
        return f"| {says} | 0 | | | | |"
    over = [fault for fault in real if fault["recovered"]]
    cells = [says, str(len(real)), str(len(over))]
    if over:
        cells.append(spread([fault["twice"] for fault in over]))
        cells.append(spread([fault["still_s"] for fault in over]))
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} | {weights} |"


def table(found: Mapping[str, Any]) -> str:
    rows = [
        row(KINDS[name].says, one["faults"], "identical" if one["identical"] else "DIFFER")
        for name, one in found.items()
        if name in KINDS
    ]
    return "\n".join([HEAD, *rows])
