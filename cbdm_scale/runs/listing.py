"""The runs of a storage, as their folders say it."""

from dataclasses import dataclass
from typing import Any

from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.evaluation.history import ScorePoint, end_of_patience, narrowed
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.evaluation.store import read_evaluations
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import LAPSE_S, Holder, living_holders
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import shorten
from cbdm_scale.training.loop import is_eval_due

OTHER_VERSION = "another version"


@dataclass(frozen=True)
class RunSummary:
    """A run in a line."""

    folder: Storage
    name: str
    state: str
    """finished, ended (train.patience), stopped, "checkpoints deleted", "another version" (that
    wrote its config.json), or by whom it is being trained."""

    num_seen: int
    """Images of the newest checkpoint; of the last evaluation where they are gone."""
    total_images: int | None
    """None where its config.json does not say."""
    best_fid: float | None
    """The lowest of all evaluations, in training and by command."""
    best_num_seen: int | None
    """Images of the checkpoint that it is of."""
    best_few_num_seen: int | None
    """Of the one with the lowest FID of the few classes."""
    checkpoints: tuple[str, ...]
    """Their names, the oldest first."""
    size: int
    """Bytes of the whole folder."""

    @property
    def may_be_cleaned(self) -> bool:
        """Whether nobody works in its folder, and what it keeps is known."""
        return not self.state.startswith("training") and self.state != OTHER_VERSION


def find_runs(storage: Storage, only: str = "", lapse_s: float = LAPSE_S) -> list[RunSummary]:
    """The training runs of a storage by name; ValueError if there is none, or not this one.

    lapse_s: seconds that a holder on another machine gets to give a sign of life.
    """
    names = [name for name in storage.list() if not name.startswith(".")]
    folders = [storage.child(name) for name in names if only in ("", name)]
    trained = {folder: about for folder in folders if (about := _about(folder)) is not None}
    if not trained:
        option, value = ("name", only) if only else ("cluster.storage", storage.url)
        there = f" Runs there: {shorten(names)}." if only and names else ""
        raise ValueError(
            f"{option} ({value}): no run there.{there} Give --cluster.storage the folder that "
            "the train command was given."
        )
    held = living_holders(list(trained), lapse_s)
    return [_summary(folder, about, held.get(folder)) for folder, about in trained.items()]


def _about(folder: Storage) -> dict[str, Any] | None:
    """The config.json of a training run; None of anything else: a classifier, a search."""
    try:
        about: dict[str, Any] = folder.read_json(RunDir.CONFIG)
    except (ValueError, OSError):
        return None
    return about if isinstance(about.get("train"), dict) else None


def _summary(folder: Storage, about: dict[str, Any], holder: Holder | None) -> RunSummary:
    try:
        config = from_dict(about)
    except ValueError:
        config = None
    total = config.train.total_images if config else about["train"].get("total_images")
    checkpoints = tuple(RunDir(folder).checkpoints())
    stored, _ = read_evaluations(folder.child(RunDir.EVALUATION))
    scores = [(one.evaluation.best.scores, one.evaluation.trained_images) for one in stored]
    evaluated = max((at or 0 for _, at in scores), default=0)
    num_seen = int(checkpoints[-1].rpartition("/")[2]) if checkpoints else evaluated
    points = _points(config, [one.evaluation for one in stored]) if config else []
    less = narrowed(points)
    fid, at = _lowest(scores, "fid")
    _, few_at = _lowest([pair for pair in scores if pair[1] not in less], "fid_few")
    state = OTHER_VERSION if not config else "stopped"
    if holder:
        state = f"training on {holder}"
    elif config and not checkpoints and (stored or folder.child(RunDir.SAMPLES).list()):
        state = "checkpoints deleted"
    elif config and num_seen >= total:
        state = "finished"
    elif config and _has_ended(config, points):
        state = "ended"
    return RunSummary(
        folder=folder,
        name=folder.url.rpartition("/")[2],
        state=state,
        num_seen=num_seen,
        total_images=total if isinstance(total, int) else None,
        best_fid=fid,
        best_num_seen=at,
        best_few_num_seen=few_at,
        checkpoints=checkpoints,
        size=folder.tree_size(),
    )


def _lowest(
    scores: list[tuple[dict[str, float], int | None]], name: str
) -> tuple[float | None, int | None]:
    """The lowest of a score, and after how many images."""
    known = [(values[name], at) for values, at in scores if name in values]
    return min(known, key=lambda pair: pair[0], default=(None, None))


def _points(config: Config, evaluations: list[Evaluation]) -> list[ScorePoint]:
    """The evaluations that training made, in order of images."""
    omega = config.eval.guidance[0]
    return [
        ScorePoint.of(at, one, omega)
        for one in evaluations
        if one.made_by == "training" and omega in [found.omega for found in one.sets]
        if (at := one.trained_images)
    ]


def _has_ended(config: Config, points: list[ScorePoint]) -> bool:
    """Whether a run ran out of train.patience."""
    on_the_way = [point for point in points if is_eval_due(point.num_seen, config.train)]
    return end_of_patience(on_the_way, config.eval.best_by, config.train.patience) is not None


def old_checkpoints(run: RunSummary, keep: int) -> list[tuple[str, int]]:
    """(name, bytes) of the checkpoints that are neither among the newest nor a best one."""
    if not run.may_be_cleaned:
        return []
    best = [RunDir.checkpoint(n) for n in (run.best_num_seen, run.best_few_num_seen) if n]
    old = [name for name in run.checkpoints[:-keep] if name not in best]
    return [(name, run.folder.child(name).tree_size()) for name in old]


def table(runs: list[RunSummary]) -> list[str]:
    """A line for each run under a heading."""
    rows = [("run", "state", "images", "best FID", "checkpoints", "MB", "where")]
    for run in runs:
        total = "?" if run.total_images is None else f"{run.total_images:,}"
        images = f"{run.num_seen:,}/{total}"
        fid = "-" if run.best_fid is None else f"{run.best_fid:.2f} at {run.best_num_seen:,}"
        megabytes = f"{run.size / 1e6:,.1f}"
        number = str(len(run.checkpoints))
        rows.append((run.name, run.state, images, fid, number, megabytes, run.folder.url))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
