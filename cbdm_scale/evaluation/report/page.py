"""The page of an evaluation: one HTML file that loads nothing, and its pictures as PNGs."""

from html import escape
from pathlib import Path

from cbdm_scale.evaluation.report.canvas import Panel, Picture, png, svg
from cbdm_scale.evaluation.report.claims import Claim, copying, headline, scope
from cbdm_scale.evaluation.report.class_charts import class_picture
from cbdm_scale.evaluation.report.compare import comparison, fair
from cbdm_scale.evaluation.report.curves import copies_picture, guidance_picture, prd_picture
from cbdm_scale.evaluation.report.grids import grid_files, grids_html
from cbdm_scale.evaluation.report.images import ReportImages
from cbdm_scale.evaluation.report.look import style_sheet
from cbdm_scale.evaluation.report.missing import missing_words
from cbdm_scale.evaluation.report.tables import class_tables, fidelity_map, pooled_table
from cbdm_scale.evaluation.report.tiles import tiles_html
from cbdm_scale.evaluation.results import Evaluation

Drawn = dict[str, Picture]
"""Name of the picture -> picture."""

MARKS = {"good": "▲", "bad": "▼", "even": "≈", "note": "·"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Whatever a name may hold: no script runs and nothing is loaded."""


def write_report(
    evaluation: Evaluation,
    pictures: ReportImages | None,
    out: Path,
    against: Evaluation | None = None,
) -> list[Path]:
    """Write report.html and its PNGs into the folder ``out``; gives their paths, page first.

    against: the evaluation of another run, drawn beside this one as far as the two compare.
    """
    out.mkdir(parents=True, exist_ok=True)
    beside = fair(evaluation, against) if against else None
    drawn = _pictures(evaluation, beside)
    files = {f"{picture.name}.png": png(picture) for picture in drawn.values()}
    if pictures is not None:
        files |= grid_files(pictures)
    page = report_html(evaluation, pictures, against, beside, drawn)
    paths = [out / "report.html"]
    paths[0].write_text(page, "utf-8")
    for name, data in files.items():
        paths.append(out / name)
        paths[-1].write_bytes(data)
    return paths


def _pictures(evaluation: Evaluation, beside: Evaluation | None) -> Drawn:
    """All that can be drawn of what is there."""
    best, other = evaluation.best, beside.best if beside else None
    found = (
        class_picture(best, other),
        guidance_picture(evaluation, beside),
        prd_picture(best, other),
        copies_picture(best.memorisation, evaluation.held_out_copies),
    )
    return {picture.name: picture for picture in found if picture}


def report_html(
    evaluation: Evaluation,
    pictures: ReportImages | None,
    against: Evaluation | None,
    beside: Evaluation | None,
    drawn: Drawn,
) -> str:
    """The text of the page; ``beside`` is what of ``against`` compares."""
    other = beside.best if beside else None
    body = "".join(
        (
            _header(evaluation, against),
            "<main>",
            tiles_html(evaluation.best, other),
            _images(evaluation, pictures),
            _by_class(evaluation, beside, drawn),
            _guidance(evaluation, beside, drawn),
            _diversity(evaluation, drawn),
            _tables(evaluation, beside),
            _missing(evaluation),
            _how(evaluation, against),
            "</main>",
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Evaluation of {escape(evaluation.run)}</title>"
        f"<style>{style_sheet()}</style></head><body>{body}"
        f"<footer>Evaluation {escape(evaluation.id)}. All numbers: metrics.json, beside this "
        "page.</footer></body></html>\n"
    )


def _header(evaluation: Evaluation, against: Evaluation | None) -> str:
    claims: list[Claim] = []
    other = note = ""
    if against:
        claims += comparison(evaluation, against)
        other = f", beside <b>{escape(against.run)}</b>"
        note = (
            '<p class="sub">Here and there: the two runs, each at its best guidance '
            f"({evaluation.best.omega:g} and {against.best.omega:g}). The intervals say what "
            "another set of images would give, not another training run.</p>"
        )
    copies = copying(evaluation)
    claims += [claim for claim in (copies, scope(evaluation)) if claim]
    items = "".join(
        f'<li class="{claim.kind}"><i>{MARKS[claim.kind]}</i>'
        f"<span>{_text(claim.text)}</span></li>"
        for claim in claims
    )
    return (
        f'<header><p class="eyebrow">{escape(evaluation.dataset)}, run '
        f"<b>{escape(evaluation.run)}</b>{other}</p>"
        f'<h1>{_text(headline(evaluation))}</h1><ul class="claims">{items}</ul>{note}</header>'
    )


def _text(sentence: str) -> str:
    """A sentence for the page: numbers stay on the line of their units."""
    together = sentence.replace(" × 1000 ", "\u00a0×\u00a01000\u00a0").replace(" %", "\u00a0%")
    return escape(together)


def _section(title: str, about: str, content: str) -> str:
    """A heading, a line about what is seen, and the content; nothing without content."""
    if not content:
        return ""
    sub = f'<p class="sub">{about}</p>' if about else ""
    return f"<section><h2>{title}</h2>{sub}{content}</section>"


def _charts(picture: Picture | None, kind: str = "") -> str:
    if picture is None:
        return ""
    cards = "".join(
        _chart(panel, f"{picture.name}{i}") for i, panel in enumerate(picture.panels)
    )
    return f'<div class="charts {kind}">{cards}</div>'


def _chart(panel: Panel, name: str) -> str:
    title, _, about = panel.title.partition(", ")
    small = f"<small>{about}</small>" if about else ""
    return (
        f'<figure class="card"><figcaption><h3>{title}</h3>{small}</figcaption>'
        f"{svg(panel, name)}</figure>"
    )


def _images(evaluation: Evaluation, pictures: ReportImages | None) -> str:
    if pictures is None or not pictures.classes:
        return ""
    nearest = (
        " Under each generated image stands the training image nearest to it, of any class."
        if pictures.nearest is not None
        else ""
    )
    about = (
        "The most frequent classes, the middle ones and the rarest, at guidance "
        f"{evaluation.best.omega:g}.{nearest} The first of each class, not selected."
    )
    return _section("What it makes", about, grids_html(evaluation, pictures))


def _by_class(evaluation: Evaluation, beside: Evaluation | None, drawn: Drawn) -> str:
    about = "Each mark is a class, coloured by its group; whiskers are 95 % intervals."
    if beside:
        about += f" Grey: {escape(beside.run)}, as far as the two compare."
    best = evaluation.best.table
    images = next((row.fid_images for row in best.classes if row.fid_images), None)
    if images:
        about += f" FID is of {images[1]:,} images of every class."
    if any(row.fid is None for row in best.classes):
        about += " Crosses on the axis: classes without the number, for reasons given below."
    content = _charts(drawn.get("per_class"))
    heat = fidelity_map(evaluation)
    return _section(
        "Rare and frequent classes",
        about,
        content + (heat and f'<div class="gap">{heat}</div>'),
    )


def _guidance(evaluation: Evaluation, beside: Evaluation | None, drawn: Drawn) -> str:
    about = (
        f"Dashed: omega {evaluation.best.omega:g}, where FID is smallest. Ringed: the best of "
        "each number. Bands are 95 % intervals; that of the Inception Score is the deviation "
        "over its splits."
    )
    about += " Grey: the other run." if beside else ""
    return _section("Guidance strength", about, _charts(drawn.get("guidance"), "small"))


def _diversity(evaluation: Evaluation, drawn: Drawn) -> str:
    content = "".join(_charts(drawn.get(name)) for name in ("prd", "copies"))
    content = content.replace('</div><div class="charts ">', "")  # side by side
    about = escape(f"PRD: {evaluation.best.prd_note}.") if "prd" in drawn else ""
    return _section("Diversity and copies", about, content)


def _tables(evaluation: Evaluation, beside: Evaluation | None) -> str:
    other = beside.best if beside else None
    pooled = pooled_table(evaluation.best, other)
    classes = class_tables(evaluation, other)
    return _section(
        "Every class",
        "Small figures are 95 % intervals. FIDs of groups are of all their images and do not "
        "compare with those of classes.",
        f'{pooled}<div class="gap">{classes}</div>',
    )


def _missing(evaluation: Evaluation) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in missing_words(evaluation))
    return _section("Not computed", "", lines and f'<ul class="plain card">{lines}</ul>')


def _how(evaluation: Evaluation, against: Evaluation | None) -> str:
    """Where the numbers come from, of both runs."""
    parts = [(evaluation, "")] + ([(against, "Compared with: ")] if against else [])
    content = "".join(
        f'<div class="card"><h3 class="name">{title}{escape(one.run)}</h3>{_made_of(one)}</div>'
        for one, title in parts
    )
    return _section("How it was made", "", f'<div class="charts pair">{content}</div>')


def _made_of(evaluation: Evaluation) -> str:
    best = evaluation.best
    trained = evaluation.trained_images
    rows = [
        ("Checkpoint", evaluation.checkpoint),
        ("Trained on", f"{trained:,} images" if trained is not None else "not known"),
        ("Data set", f"{evaluation.dataset} ({evaluation.dataset_fingerprint})"),
        ("Features", f"{evaluation.extractor} ({evaluation.extractor_fingerprint})"),
        ("Resize rule", evaluation.resize),
        ("Real images", f"{evaluation.num_real:,}, eval split"),
        ("Generated images", f"{best.num_images:,} at each strength"),
        (
            "Guidance",
            f"{', '.join(f'{s.omega:g}' for s in evaluation.sets)} ({best.guidance_mode})",
        ),
        ("Best set", best.images),
        ("Evaluation", evaluation.id),
    ]
    cells = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f"<dl>{cells}</dl>"
