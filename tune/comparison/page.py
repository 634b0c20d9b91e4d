"""The page of a comparison: one HTML file that loads nothing, and its pictures as PNGs."""

from pathlib import Path

from cbdm_scale.evaluation.report.rendering import render_page
from cbdm_scale.storage.folder import Storage
from tune.comparison.figures import pictures
from tune.comparison.findings import (
    AGREEMENT_HEADS,
    DIFFERENCE_HEADS,
    HIGHER,
    VALUE_HEADS,
    Findings,
    Line,
    SpaceFindings,
    agreement_rows,
    difference_cell,
    difference_rows,
    further_words,
    rank_note,
    value_rows,
)
from tune.comparison.protocol import Phase, PhaseName, Protocol

PAGE = "report.html"
SAID = ("fid", "fid_few", "mind_few", "mind_worst", "kept_few", "recall_few")
"""Scores of the sentences."""
NAMES = {
    "fid": "FID",
    "fid_few": "FID of the few",
    "mind_few": "MIND of the few",
    "mind_worst": "MIND of the worst class",
    "kept_few": "label kept of the few",
    "recall_few": "recall of the few",
}


def write_page(
    findings: Findings, protocol: Protocol, phase: Phase, name: PhaseName, home: Storage
) -> None:
    """Write report.html and its PNGs."""
    drawn = pictures(findings)
    page = render_page(
        "compare.html.j2",
        drawn,
        Path(__file__).parent.parent / "templates",
        dataset=protocol.dataset,
        phase=name,
        caution=findings.caution,
        lines=statement(findings, name),
        heads=VALUE_HEADS,
        values=value_rows(findings),
        difference_heads=DIFFERENCE_HEADS,
        differences=differences(findings),
        further=[
            (further_words(space, findings), value_rows(space), differences(space))
            for space in findings.further
        ],
        control=findings.control.name,
        agreement_heads=AGREEMENT_HEADS,
        agreements=agreement_rows(findings),
        rank_note=rank_note(findings),
        how={
            "data set": protocol.dataset,
            "about": protocol.about,
            "seeds": ", ".join(map(str, findings.seeds)),
            "budget": f"{max(phase.stops):,} images of the control",
            "stops": ", ".join(f"{stop:,}" for stop in sorted(phase.stops)),
            "strengths": ", ".join(f"{omega:g}" for omega in sorted(phase.strengths)),
            "chosen by": " + ".join(f"{w:g} {s}" for s, w in protocol.criterion.items()),
            "features": ", ".join(protocol.extractors),
            "images": f"{protocol.num_images:,} of a network at a stop and strength",
            "options of all": ", ".join(f"{o} {v}" for o, v in protocol.options.items()),
            **{row: words(protocol, row) for row in protocol.names(phase)},
        },
    )
    for file, picture in drawn.items():
        home.write_bytes(f"{file}.png", picture.png())
    home.write_bytes(PAGE, page.encode())


def words(protocol: Protocol, row: str) -> str:
    """What makes a row."""
    method = protocol.rows[row]
    given = [f"{option} {value}" for option, value in method.options.items()]
    first = f"the networks of {method.of}" if method.of else f"preset {method.preset}"
    given += [f"guided by its network at {method.guide:,}"] if method.guide else []
    return ", ".join([first, *given, f"guidance {method.guidance}"])


def differences(space: SpaceFindings) -> list[list[str]]:
    """A line a method: less the control."""
    return [list(map(plain, row)) for row in difference_rows(space)]


def plain(cell: str) -> str:
    """A cell of Markdown without its stars."""
    return cell.strip("*")


def statement(findings: Findings, phase: PhaseName) -> list[str]:
    """Which method is better or worse than the control beyond noise, in sentences."""
    control, seeds = findings.control, len(findings.seeds)
    if phase == "screen":
        first = "A screen: it says where to look, and its networks decide nothing."
    elif seeds < 2:
        first = "One seed does not tell a better method from luck."
    else:
        first = f"Against {control.name}, over {seeds} seeds at equal compute."
    return [
        first,
        *(_sentence(ln, control) for ln in findings.lines[1:] if len(ln.reports) > 1),
    ]


def _sentence(line: Line, control: Line) -> str:
    better, worse = list[str](), list[str]()
    for score in SAID:
        found = line.difference(control, score)
        if found is not None and (found.low > 0 or found.high < 0):
            side = better if (found.value > 0) == (score in HIGHER) else worse
            side.append(f"{NAMES[score]} {plain(difference_cell(found, score))}")
    if not (better or worse):
        return f"{line.name}: no difference beyond noise."
    parts = [f"{w} in {', '.join(s)}" for w, s in (("better", better), ("worse", worse)) if s]
    return f"{line.name}: {'; '.join(parts)}."
