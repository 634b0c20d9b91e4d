"""What a comparison found: means over seeds, differences to the control, and a table.

Intervals are of 95 %, by Student's t over seeds. Differences are taken seed by seed.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.storage.folder import Storage
from tune.analysis import mean_interval
from tune.comparison.choice import Grid, Report
from tune.comparison.network_job import SetsJob
from tune.comparison.protocol import Protocol
from tune.comparison.ranks import FEWEST, TOO_FEW, Agreement, agreements
from tune.comparison.scores import Scores, average

COLUMNS = {
    "fid": "FID",
    "fid_many": "many",
    "fid_medium": "medium",
    "fid_few": "few",
    "mind": "MIND",
    "mind_few": "few",
    "mind_worst": "worst class",
    "fld": "FLD",
    "fld_few": "few",
    "kept": "label kept",
    "kept_few": "few",
    "recall": "recall",
    "recall_few": "few",
    "copies": "copies",
    "copies_few": "few",
}
"""Of the table; findings.json has every score."""
VALUE_HEADS = ("", "cost", *COLUMNS.values(), "chosen: compute, strength")
DIFFERENCE_HEADS = ("", *COLUMNS.values())
HIGHER = tuple(f"{s}{g}" for s in ("kept", "recall") for g in ("", *(f"_{g}" for g in GROUPS)))
"""Scores of which more is better."""
AGREEMENT = (
    "the order of methods at an earlier stop and at the last, each at its best strength: "
    "Spearman's rank correlation of the criterion, the mean over seeds, with the 95 % interval "
    "of a bootstrap over seeds"
)
AGREEMENT_HEADS = (
    "compute",
    "networks",
    "rank correlation",
    "seeds: the last's best in the best third",
)
TABLE, FINDINGS = "table.md", "findings.json"
BY_GROUP = ", by group"


@dataclass(frozen=True)
class Line:
    """A method in the table: at its best, by seed."""

    name: str
    row: str
    cost: float
    reports: dict[int, Report]
    grid: dict[int, Grid] = field(default_factory=dict)
    """By seed: every stop and strength with its scores, both halves averaged."""

    def values(self, score: str) -> dict[int, float]:
        """Of one score, the seeds that have it."""
        return {s: r.scores[score] for s, r in self.reports.items() if score in r.scores}

    def mean(self, score: str) -> Interval | None:
        """Over seeds; None where no seed has it."""
        values = self.values(score)
        return mean_interval(list(values.values())) if values else None

    def difference(self, other: "Line", score: str) -> Interval | None:
        """Less the other's, seed by seed."""
        mine, theirs = self.values(score), other.values(score)
        both = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        return mean_interval(both) if both else None


@dataclass(frozen=True)
class SpaceFindings:
    """In one feature space: the lines, the control first, and what to hold them against."""

    lines: tuple[Line, ...]
    references: Mapping[str, Scores]
    """What is had without a network, by name."""
    extractor: str = ""

    @property
    def control(self) -> Line:
        """What the others are compared with."""
        return self.lines[0]


@dataclass(frozen=True)
class Findings(SpaceFindings):
    """In the first space, which chose; ``further`` has others at the same choice."""

    agreements: tuple[Agreement, ...] = ()
    """Of every stop with the last."""
    further: tuple[SpaceFindings, ...] = ()
    caution: str = ""
    """What makes all of it mean less than it seems to."""

    @property
    def seeds(self) -> list[int]:
        """That any line has."""
        return sorted({seed for line in self.lines for seed in line.reports})


def find(
    protocol: Protocol, jobs: Sequence[SetsJob], costs: Mapping[str, float], caution: str
) -> Findings:
    """Choose for every network whose sets are all there; ``caution`` as of ``Findings``."""
    lines: list[list[Line]] = []
    for row in dict.fromkeys((protocol.control, *protocol.rows)):
        mine = [job for job in jobs if job.row == row]
        choosers = {job.config.seed: job.chooser(protocol.criterion) for job in mine}
        for variant in protocol.rows[row].variants if mine else ():
            reports = {seed: c.reports(variant) for seed, c in sorted(choosers.items())}
            name = row if variant == "one" else f"{row}{BY_GROUP}"
            of_row = []
            for i in range(len(protocol.extractors)):
                here = {seed: in_spaces[i] for seed, in_spaces in reports.items()}
                grid = {seed: c.spaces[i].grid for seed, c in choosers.items()}
                shown = grid if variant == "one" else {}
                of_row.append(Line(name, row, costs[row], here, shown))
            lines.append(of_row)
    first, *further = (
        SpaceFindings(in_space, _references(jobs, i), protocol.extractors[i])
        for i, in_space in enumerate(zip(*lines, strict=True))
    )
    ranks = agreements([line.grid for line in first.lines], protocol.criterion)
    return Findings(**vars(first), agreements=ranks, further=tuple(further), caution=caution)


def _references(jobs: Sequence[SetsJob], space: int) -> dict[str, Scores]:
    """What is had without a network in a space, the mean over data sets."""
    of_sets = [one.references() for one in {job.spaces[space]: None for job in jobs}]
    return {name: average([one[name] for one in of_sets]) for name in of_sets[0]}


def write_findings(findings: Findings, home: Storage) -> str:
    """Write table.md and findings.json; the table."""
    table = make_table(findings)
    home.write_bytes(TABLE, f"{table}\n".encode())
    home.write_json(FINDINGS, as_json(findings))
    return table


def make_table(findings: Findings) -> str:
    """Markdown: values, and below them the differences to the control; so in every space."""
    count = len(findings.seeds)
    words = "seed" if count == 1 else "seeds"
    parts = [f"warning: {findings.caution}"] if findings.caution else []
    parts += [
        f"{count} {words}, mean ± half of the 95 % interval over seeds",
        *_space_tables(findings),
    ]
    if findings.agreements:
        parts += [AGREEMENT, markdown(AGREEMENT_HEADS, agreement_rows(findings))]
    elif note := rank_note(findings):
        parts.append(note)
    parts += filter(None, map(edge_note, findings.lines))
    for space in findings.further:
        parts += [further_words(space, findings), *_space_tables(space)]
    return "\n\n".join(parts)


def further_words(space: SpaceFindings, first: SpaceFindings) -> str:
    """What the tables of a further space are."""
    return (
        f"in the feature space of {space.extractor}, of the same images: each method at the "
        f"stops and strengths that were chosen in that of {first.extractor}"
    )


def _space_tables(space: SpaceFindings) -> list[str]:
    parts = [markdown(VALUE_HEADS, value_rows(space))]
    if differences := difference_rows(space):
        parts += [
            f"less {space.control.name}, seed by seed; bold where the 95 % interval leaves "
            "out 0",
            markdown(DIFFERENCE_HEADS, differences),
        ]
    return parts


def difference_rows(space: SpaceFindings) -> list[list[str]]:
    """A line a method with two seeds or more: less the control."""
    return [
        [line.name, *(difference_cell(line.difference(space.control, s), s) for s in COLUMNS)]
        for line in space.lines[1:]
        if len(line.reports) > 1
    ]


def agreement_rows(findings: Findings) -> list[list[str]]:
    """A line a stop."""
    rows = []
    for one in findings.agreements:
        found = one.correlation
        ends = f" [{found.low:.2f}, {found.high:.2f}]" if found.is_known else ""
        kept = f"{one.kept:.0%} of {one.num_seeds}"
        words = f"{found.value:.2f}{ends}"
        rows.append([f"{one.stop:,}", str(one.num_networks), words, kept])
    return rows


def rank_note(findings: Findings) -> str:
    """Why nothing is said of earlier stops where there are some; else ""."""
    grids = [line.grid for line in findings.lines if line.grid]
    stops = {stop for of in grids for grid in of.values() for stop, _ in grid}
    return TOO_FEW if len(grids) < FEWEST and len(stops) > 1 else ""


def edge_note(line: Line) -> str:
    """What to try where most choices are at an end of the strengths; "" where they are not."""
    omegas = {omega for grid in line.grid.values() for _, omega in grid}
    chosen = [c.strengths["all"] for r in line.reports.values() for c in r.chosen if line.grid]
    for end, words in ((max, "largest"), (min, "smallest")):
        edge = end(omegas, default=0.0)
        if len(omegas) > 1 and edge and 2 * chosen.count(edge) > len(chosen):
            return (
                f"{line.name}: the best strength is mostly the {words} that was tried "
                f"({edge:g}). Try {'larger' if end is max else 'smaller'} ones."
            )
    return ""


def value_rows(findings: SpaceFindings) -> list[list[str]]:
    """A line a method at its best, then what is had without a network."""
    rows = [
        [
            line.name,
            f"{line.cost:.2f}",
            *(cell(line.mean(score), score) for score in COLUMNS),
            chosen_words(line),
        ]
        for line in findings.lines
    ]
    for name, known in findings.references.items():
        values = [cell(interval_of(known.get(score)), score) for score in COLUMNS]
        rows.append([name, "", *values, ""])
    return rows


def interval_of(value: float | None) -> Interval | None:
    """A number without ends."""
    return None if value is None else Interval(value)


def digits_of(score: str) -> int:
    """Decimals: of distances two, of shares three."""
    return 2 if score.startswith(("fid", "mind", "fld")) else 3


def cell(found: Interval | None, score: str) -> str:
    """A mean with half its interval: 2.51 ± 0.20."""
    if found is None:
        return "-"
    half, digits = found.high - found.value, digits_of(score)
    ends = f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    return f"{found.value:.{digits}f}{ends}"


def difference_cell(found: Interval | None, score: str) -> str:
    """A difference with the ends of its interval: **-0.51 [-0.80, -0.22]**."""
    if found is None:
        return "-"
    d = digits_of(score)
    text = f"{found.value:+.{d}f} [{found.low:+.{d}f}, {found.high:+.{d}f}]"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def chosen_words(line: Line) -> str:
    """What was chosen how often, the most frequent first."""
    words = Counter(c.words for report in line.reports.values() for c in report.chosen)
    return "; ".join(f"{text} ({n})" for text, n in words.most_common(3))


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(findings: Findings) -> dict[str, Any]:
    """Every number, by seed; ends that are infinite are null."""
    return {
        "caution": findings.caution,
        "seeds": findings.seeds,
        "agreement_with_the_last_stop": [
            {
                "stop": one.stop,
                "rank_correlation": ends_of(one.correlation),
                "networks": one.num_networks,
                "seeds": one.num_seeds,
                "best_in_best_third": one.kept,
            }
            for one in findings.agreements
        ],
        **_space_json(findings),
        "further": [_space_json(space) for space in findings.further],
    }


def _space_json(space: SpaceFindings) -> dict[str, Any]:
    control = space.control
    scores = list(
        dict.fromkeys(s for ln in space.lines for r in ln.reports.values() for s in r.scores)
    )
    return {
        "extractor": space.extractor,
        "references": dict(space.references),
        "lines": [
            {
                "name": line.name,
                "cost": line.cost,
                "by_seed": {str(s): asdict(r) for s, r in line.reports.items()},
                "mean": {s: ends_of(line.mean(s)) for s in scores},
                "difference": {s: ends_of(line.difference(control, s)) for s in scores},
            }
            for line in space.lines
        ],
    }


def ends_of(found: Interval | None) -> list[float | None] | None:
    """[value, low, high]; an end that is not known is null."""
    if found is None:
        return None
    return [x if math.isfinite(x) else None for x in (found.value, found.low, found.high)]
