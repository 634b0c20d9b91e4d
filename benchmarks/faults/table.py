"""The table of docs/reliability.md."""

import statistics
from collections.abc import Mapping
from typing import Any

HEAD = (
    "| fault | injected | recovered | images computed twice | seconds without a step | weights "
    "| numbers |\n|---|---|---|---|---|---|---|"
)


def spread(values: list[float]) -> str:
    """Median and, in brackets, the largest."""
    return f"{statistics.median(values):.0f} ({max(values):.0f})"


def row(says: str, faults: list[dict[str, Any]], whole: list[str]) -> str:
    """Of the faults that were proven to have happened."""
    real = [fault for fault in faults if "proof" in fault]
    over = [fault for fault in real if fault["recovered"]]
    cells = [says, str(len(real)), str(len(over))]
    for cost in ("twice", "still_s"):
        cells.append(spread([fault[cost] for fault in over]) if over else "")
    return f"| {' | '.join([*cells, *whole])} |"


def table(found: Mapping[str, Any], says: Mapping[str, str]) -> str:
    """A row for each kind, and under each soak a row for each of its kinds."""
    lines = [HEAD]
    for name, one in found.items():
        weights = "identical" if one["identical"] else f"losses to {one['largest']:.0e}"
        whole = [weights, "each once" if one["numbers"] else "NOT each once"]
        lines.append(row(says.get(name, name), one["faults"], whole))
        if name not in says:
            for kind in sorted({fault["kind"] for fault in one["faults"]} & set(says)):
                some = [fault for fault in one["faults"] if fault["kind"] == kind]
                lines.append(row(f"- {says[kind]}", some, ["", ""]))
    return "\n".join(lines)
