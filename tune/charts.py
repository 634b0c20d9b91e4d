"""The pictures of a search: over each parameter, head against tail, importance, the race."""

from collections.abc import Callable, Sequence
from typing import Any

from cbdm_scale.evaluation.report.canvas import (
    BEST,
    GROUP_COLOURS,
    INK,
    MUTED,
    OTHER,
    PAPER,
    RUN,
    Panel,
    Picture,
)
from cbdm_scale.metrics.intervals import Interval
from tune.findings import Finalist, mean_interval
from tune.ledger import Trial
from tune.objective import WORDS, ObjectiveName, best_strength, front, scalar, values_at
from tune.space import TAU, Range, Space

Draw = Callable[[Any], None]
EARLY = MUTED
"""Evaluations at the first rung, which all trials reach."""


def over_picture(
    space: Space,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    rungs: tuple[int, ...],
    objective: ObjectiveName,
) -> Picture | None:
    """The objective over each parameter (Figure 5, Table 8), tau first."""
    options = sorted(space, key=lambda option: (option != TAU, option))
    panels = []
    for option in options:
        title = f"{option}, first rung grey, last rung coloured, repeated with intervals"
        draw = _over(option, space, trials, found, rungs, objective)
        panels.append(Panel(title, draw))
    return Picture("parameters", tuple(panels)) if trials else None


def _over(
    option: str,
    space: Space,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    rungs: tuple[int, ...],
    objective: ObjectiveName,
) -> Draw:
    dimension = space[option]

    def dots(axes: Any, images: int, **look: Any) -> None:
        some = [t for t in trials if t.at(images) and not t.is_control and option in t.params]
        values = [t.value(objective, images) for t in some]
        axes.plot([t.params[option] for t in some], values, "o", **look)

    def draw(axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        if isinstance(dimension, Range) and dimension.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        dots(axes, rungs[0], ms=4, mfc="none", mec=EARLY, mew=0.9, label=f"{rungs[0]:,} images")
        dots(axes, rungs[-1], ms=5.5, color=RUN, mec=PAPER, label=f"{rungs[-1]:,} images")
        for one in found:
            if one.trial.is_control or not one.repetitions or option not in one.trial.params:
                continue
            x, ends = one.trial.params[option], shown(one.scalars())
            axes.plot([x, x], [ends.low, ends.high], color=INK, lw=1.4, zorder=4)
            axes.plot(x, ends.value, "D", ms=6, color=BEST, mec=PAPER, zorder=5)
        control(axes, trials, found, rungs[-1], objective)
        axes.set(xlabel=option, ylabel=WORDS[objective], yscale="log")
        plain_ticks(axes)
        axes.legend(loc="best")

    return draw


def shown(values: Sequence[float]) -> Interval:
    """Mean and interval, or for a single value the value alone."""
    ends = mean_interval(values)
    return ends if len(values) > 1 else Interval(ends.value, ends.value, ends.value)


def control(
    axes: Any,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    images: int,
    objective: ObjectiveName,
) -> None:
    """DDPM as a line across, with the interval of its repetitions."""
    again = next((f for f in found if f.trial.is_control and f.repetitions), None)
    ended = [t.value(objective, images) for t in trials if t.is_control and t.at(images)]
    if again:
        ends = shown(again.scalars())
        axes.axhspan(max(ends.low, 1e-9), ends.high, color=OTHER, alpha=0.16, lw=0)
        axes.axhline(ends.value, color=OTHER, ls="--", lw=1.3, label="tau 0, repeated")
    elif ended:
        axes.axhline(min(ended), color=OTHER, ls="--", lw=1.3, label="tau 0")


def plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def front_picture(
    trials: Sequence[Trial], images: int, objective: ObjectiveName
) -> Picture | None:
    """FID of the many classes against that of the few, at the end (and the first rung)."""
    points = []
    for trial in trials:
        rung = trial.at(images)
        if rung is None:
            continue
        scores = rung.scores[best_strength(rung.scores, objective)]
        if "fid_many" in scores and "fid_few" in scores:
            points.append((scores["fid_many"], scores["fid_few"], trial))
    if len(points) < 2:
        return None
    best = front([point[:2] for point in points])

    def draw(axes: Any) -> None:
        line = sorted(points[i][:2] for i in best)
        axes.plot(*zip(*line, strict=True), color=BEST, lw=1.4, label="no other is better")
        for is_control, colour, label in ((False, RUN, "trials"), (True, OTHER, "tau 0")):
            some = [p[:2] for p in points if p[2].is_control == is_control]
            if some:
                mark = "s" if is_control else "o"
                axes.plot(*zip(*some, strict=True), mark, color=colour, mec=PAPER, label=label)
        for x, y, trial in (points[i] for i in best):
            axes.annotate(trial.id, (x, y), (4, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel="FID of the many classes", ylabel="FID of the few classes")
        axes.margins(0.12)
        axes.legend(loc="best")

    title = f"Head against tail, after {images:,} images; lower left is better"
    return Picture("front", (Panel(title, draw),))


def importance_picture(shares: dict[str, float]) -> Picture | None:
    """How much of the objective's variance each parameter explains."""
    if not shares:
        return None

    def draw(axes: Any) -> None:
        ordered = sorted(shares.items(), key=lambda item: item[1])
        axes.barh([name for name, _ in ordered], [100 * v for _, v in ordered], color=RUN)
        axes.grid(False, axis="y")
        axes.set_xlabel("% of the variance at the first rung (fANOVA)")

    return Picture("importance", (Panel("Importance of each parameter", draw),))


def race_picture(
    trials: Sequence[Trial], rungs: tuple[int, ...], objective: ObjectiveName
) -> Picture | None:
    """The objective over images, a line a trial; rungs dotted."""
    some = [t for t in trials if t.rungs]
    if not some:
        return None

    def draw(axes: Any) -> None:
        for images in rungs:
            axes.axvline(images, color=MUTED, lw=0.8, ls=(0, (1, 3)))
        for trial in sorted(some, key=lambda t: (t.is_control, t.images)):
            colour = OTHER if trial.is_control else RUN
            x = [rung.images for rung in trial.rungs]
            y = [best(rung.scores, objective) for rung in trial.rungs]
            ended = trial.status == "finished"
            look = {"color": colour, "alpha": 1.0 if ended else 0.55}
            axes.plot(x, y, "o-" if ended else "x-", ms=4.5, lw=1.3, **look)
        axes.plot([], [], "o-", color=RUN, label="to the end")
        axes.plot([], [], "x-", color=RUN, alpha=0.55, label="stopped")
        axes.plot([], [], "o-", color=OTHER, label="tau 0")
        axes.set(xlabel="training images", ylabel=WORDS[objective], yscale="log")
        plain_ticks(axes)
        axes.legend(loc="best")

    return Picture("race", (Panel("Learning curves, rungs dotted", draw),))


def best(scores: Any, objective: ObjectiveName) -> float:
    return scalar(values_at(scores, best_strength(scores, objective), objective))


def strength_picture(trials: Sequence[Trial], images: int) -> Picture | None:
    """FID over the guidance strength at the end, a line a trial."""
    some = [(t, rung) for t in trials if (rung := t.at(images)) and len(rung.scores) > 1]
    if not some:
        return None

    def draw(axes: Any) -> None:
        for trial, rung in some:
            omegas = sorted(rung.scores, key=float)
            values = [rung.scores[omega]["fid"] for omega in omegas]
            colour = OTHER if trial.is_control else GROUP_COLOURS["many"]
            axes.plot([float(o) for o in omegas], values, "o-", ms=4, lw=1.2, color=colour)
        axes.set(xlabel="guidance omega", ylabel="FID", yscale="log")
        plain_ticks(axes)

    return Picture("strength", (Panel("FID over guidance, tau 0 grey", draw),))
