"""The table of docs/reliability.md."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.timing import markdown

HEAD = (
    *("fault", "injected", "recovered", "images computed twice", "seconds without a step"),
    *("weights", "numbers"),
)


def spread(values: list[float]) -> str:
    """Median and, in brackets, the largest."""
    return f"{statistics.median(values):.0f} ({max(values):.0f})" if values else ""


def row(says: str, faults: list[dict[str, Any]]) -> list[str]:
    """Of the faults that were proven to have happened."""
    real = [fault for fault in faults if "proof" in fault]
    over = [fault for fault in real if fault["recovered"]]
    costs = [spread([fault[cost] for fault in over]) for cost in ("twice", "still_s")]
    return [says, str(len(real)), str(len(over)), *costs]


def table(found: Mapping[str, Any], says: Mapping[str, str]) -> str:
    """A row for each kind, and under each soak a row for each of its kinds."""
    rows = []
    for name, one in found.items():
        weights = "identical" if one["identical"] else f"losses to {one['largest']:.0e}"
        whole = [weights, "each once" if one["numbers"] else "NOT each once"]
        rows.append([*row(says.get(name, name), one["faults"]), *whole])
        kinds = {fault["kind"] for fault in one["faults"]} & set(says)
        for kind in sorted(kinds) if name not in says else ():
            some = [fault for fault in one["faults"] if fault["kind"] == kind]
            rows.append([*row(f"- {says[kind]}", some), "", ""])
    return markdown(HEAD, rows)
