"""The page of a search: one HTML file that loads nothing, and its pictures as PNGs."""

from collections.abc import Sequence
from html import escape

from cbdm_scale.evaluation.report.canvas import Picture, png, svg
from cbdm_scale.evaluation.report.look import style_sheet
from cbdm_scale.evaluation.report.page import POLICY
from cbdm_scale.evaluation.report.words import number, with_interval
from tune.ask import importance
from tune.charts import (
    front_picture,
    importance_picture,
    over_picture,
    race_picture,
    shown,
    strength_picture,
)
from tune.findings import Comparison, Finalist
from tune.ledger import Trial
from tune.objective import NAMES, WORDS, best_strength, cost_of
from tune.search import Search
from tune.space import settings


def make_page(
    search: Search,
    found: Sequence[Finalist],
    compared: Sequence[Comparison],
    lines: Sequence[str],
) -> dict[str, bytes]:
    """report.html and its PNGs, by name."""
    drawn = pictures(search, found)
    files = {f"{picture.name}.png": png(picture) for picture in drawn.values()}
    files["report.html"] = page_html(search, found, compared, lines, drawn).encode()
    return files


def pictures(search: Search, found: Sequence[Finalist]) -> dict[str, Picture]:
    objective, rungs = search.options.objective, search.plan.rungs
    trials = search.ledger.of_kind("control", "search")
    searched = [t for t in trials if not t.is_control and t.rungs]
    drawn = (
        over_picture(search.space, trials, found, rungs, objective),
        front_picture(trials, rungs[-1], objective),
        importance_picture(importance(search.space, searched, objective)),
        race_picture(trials, rungs, objective),
        strength_picture(trials, rungs[-1]),
    )
    return {picture.name: picture for picture in drawn if picture}


def page_html(
    search: Search,
    found: Sequence[Finalist],
    compared: Sequence[Comparison],
    lines: Sequence[str],
    drawn: dict[str, Picture],
) -> str:
    name = escape(search.plan.name)
    claims = "".join(f"<li><i>·</i><span>{escape(line)}</span></li>" for line in lines[1:])
    over = _charts(drawn, "parameters")
    others = _charts(drawn, "race", "front", "importance", "strength")
    charts = over + others.replace('class="charts', 'class="charts pair')
    body = (
        f'<header><p class="eyebrow">Search <b>{name}</b>, data set '
        f"{escape(search.base.dataset)}</p><h1>{escape(lines[0])}</h1>"
        f'<ul class="claims">{claims}</ul></header><main>'
        f"{_section('The winner and the control', _compared(compared))}"
        f"{_section('Repeated with other seeds', _finalists(search, found))}"
        f"{_section('What the trials say', charts)}"
        f"{_section('Every trial', _trials(search))}"
        f"{_section('How it was searched', _how(search))}</main>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Search {name}</title><style>{style_sheet()}</style></head><body>{body}"
        "<footer>All numbers: findings.json and ledger/, beside this page.</footer>"
        "</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _charts(drawn: dict[str, Picture], *names: str) -> str:
    """The panels of some pictures side by side."""
    cards = []
    some = [drawn[name] for name in names if name in drawn]
    for picture, (i, panel) in ((p, found) for p in some for found in enumerate(p.panels)):
        title, _, about = panel.title.partition(", ")
        small = f"<small>{escape(about)}</small>" if about else ""
        drawing = svg(panel, f"{picture.name}{i}")
        cards.append(
            f'<figure class="card"><figcaption><h3>{escape(title)}</h3>{small}</figcaption>'
            f"{drawing}</figure>"
        )
    return f'<div class="charts gap">{"".join(cards)}</div>' if cards else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are escaped here."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _compared(compared: Sequence[Comparison]) -> str:
    heads = ("", "winner", "tau 0", "difference, seed by seed", "beyond noise")
    words = {"better": "better", "worse": "worse", "even": "no difference"}
    rows = [
        (
            NAMES[c.metric],
            with_interval(c.winner),
            with_interval(c.control),
            with_interval(c.difference),
            words[c.verdict],
        )
        for c in compared
    ]
    return _table(heads, rows)


def _finalists(search: Search, found: Sequence[Finalist]) -> str:
    rows = []
    for one in found:
        values = one.scalars()
        given = settings(search.space, one.trial.params)
        rows.append(
            (
                f"{one.trial.id}{' (tau 0)' if one.trial.is_control else ''}",
                with_interval(shown(values)) if values else "none came to its end",
                ", ".join(number(v) for v in values),
                one.omega,
                ", ".join(f"{o.rpartition('.')[2]} {v}" for o, v in given.items()),
            )
        )
    objective = WORDS[search.options.objective]
    return _table(("trial", f"{objective}, mean", "by seed", "omega", "values"), rows)


def _trials(search: Search) -> str:
    objective = search.options.objective

    def place(trial: Trial) -> tuple[int, float]:
        return -trial.images, trial.value(objective)

    rows = []
    for trial in sorted(search.ledger.of_kind("control", "search"), key=place):
        scores = trial.rungs[-1].scores if trial.rungs else {}
        omega = best_strength(scores, objective) if scores else ""
        figures = [
            cost_of(scores[omega], metric) if scores and metric in scores[omega] else None
            for metric in NAMES
        ]
        given = settings(search.space, trial.params)
        rows.append(
            (
                trial.id,
                *(str(given.get(option, "")) for option in search.space),
                f"{trial.images:,}",
                omega,
                *("" if value is None else number(value) for value in figures),
                trial.status + (f": {trial.reason}" if trial.reason else ""),
            )
        )
    heads = ("trial", *search.space, "images", "omega", *NAMES.values(), "how it ended")
    return _table(heads, rows)


def _how(search: Search) -> str:
    from tune.identity import describe_search

    found = describe_search(search.options, search.base, search.space)
    more = {
        "scheduler": search.options.scheduler,
        "searcher": search.options.searcher,
        "images of an evaluation": f"{search.base.eval.num_images:,} at each strength",
        "seed": str(search.base.seed),
    }
    cells = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>"
        for name, words in (found | more).items()
    )
    return f'<dl class="card">{cells}</dl>'
