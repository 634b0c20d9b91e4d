"""The page of a search: one HTML file that loads nothing, and its pictures as PNGs."""

from collections.abc import Sequence
from pathlib import Path

from cbdm_scale.evaluation.report.formatting import number, with_interval
from cbdm_scale.evaluation.report.rendering import render_page
from tune.analysis import Comparison, Finalist
from tune.figures import interval_of, pictures
from tune.identity import describe_search
from tune.objective import NAMES, WORDS, best_strength, cost_of
from tune.sampler import importance
from tune.search import Search
from tune.space import settings
from tune.trials import Trial

VERDICTS = {"better": "better", "worse": "worse", "even": "no difference"}


def make_page(
    search: Search,
    finalists: Sequence[Finalist],
    compared: Sequence[Comparison],
    lines: Sequence[str],
) -> dict[str, bytes]:
    """report.html and its PNGs: name -> content. ``lines`` are what was found, in sentences."""
    options, rungs = search.options, search.template.rungs
    trials = search.store.of_kind("control", "search")
    searched = [t for t in trials if not t.is_control and t.rungs]
    shares = importance(search.space, searched, options.objective)
    drawn = pictures(search.space, trials, finalists, shares, rungs, options.objective)
    ranked = sorted(trials, key=lambda t: (-t.images, t.value(options.objective)))
    page = render_page(
        "search.html.j2",
        drawn,
        Path(__file__).parent / "templates",
        name=search.template.name,
        dataset=search.base.dataset,
        lines=lines,
        objective=WORDS[options.objective],
        compared=[_compared_cells(one) for one in compared],
        finalists=[_finalist_cells(search, one) for one in finalists],
        heads=("trial", *search.space, "images", "omega", *NAMES.values(), "how it ended"),
        trials=[_trial_cells(search, one) for one in ranked],
        how={
            **describe_search(options, search.base, search.space),
            "scheduler": options.scheduler,
            "searcher": options.searcher,
            "images of an evaluation": f"{search.base.eval.num_images:,} at each strength",
            "seed": search.base.seed,
        },
    )
    files = {f"{name}.png": picture.png() for name, picture in drawn.items()}
    return files | {"report.html": page.encode()}


def _compared_cells(one: Comparison) -> list[str]:
    intervals = (one.winner, one.control, one.difference)
    return [NAMES[one.metric], *map(with_interval, intervals), VERDICTS[one.verdict]]


def _finalist_cells(search: Search, one: Finalist) -> list[str]:
    values = one.scalars()
    given = settings(search.space, one.trial.params)
    return [
        f"{one.trial.id}{' (tau 0)' if one.trial.is_control else ''}",
        with_interval(interval_of(values)) if values else "none came to its end",
        ", ".join(map(number, values)),
        one.omega,
        ", ".join(f"{option.rpartition('.')[2]} {value}" for option, value in given.items()),
    ]


def _trial_cells(search: Search, trial: Trial) -> list[str]:
    omega, scores = "", dict[str, float]()
    if trial.rungs:
        omega = best_strength(trial.rungs[-1].scores, search.options.objective)
        scores = dict(trial.rungs[-1].scores[omega])
    given = settings(search.space, trial.params)
    return [
        trial.id,
        *(str(given.get(option, "")) for option in search.space),
        f"{trial.images:,}",
        omega,
        *(number(cost_of(scores, metric)) if metric in scores else "" for metric in NAMES),
        f"{trial.status}: {trial.reason}" if trial.reason else trial.status,
    ]
