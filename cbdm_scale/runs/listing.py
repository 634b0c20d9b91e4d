"""The runs of a storage, as their folders say it."""

from dataclasses import dataclass

from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.evaluation.history import ScorePoint, end_of_patience, narrowed
from cbdm_scale.evaluation.records import read_evaluations
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import holder_of
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import shorten
from cbdm_scale.training.loop import is_eval_due


@dataclass(frozen=True)
class RunSummary:
    """A run in a line."""

    folder: Storage
    name: str
    state: str
    """finished, ended (train.patience), stopped, or by whom it is being trained."""

    num_seen: int
    """Images of the newest checkpoint."""
    total_images: int
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
    def is_held(self) -> bool:
        """Whether a command works in its folder."""
        return self.state.startswith("training")


def find_runs(storage: Storage, only: str = "") -> list[RunSummary]:
    """The training runs of a storage by name; ValueError if there is none, or not this one."""
    names = [name for name in storage.list() if not name.startswith(".")]
    found = [_summary(storage.child(name), name) for name in names if only in ("", name)]
    runs = [run for run in found if run]
    if not runs:
        option, value = ("name", only) if only else ("cluster.storage", storage.url)
        there = f" Runs there: {shorten(names)}." if only and names else ""
        raise ValueError(
            f"{option} ({value}): no run there.{there} Give --cluster.storage the folder that "
            "the train command was given."
        )
    return runs


def _summary(folder: Storage, name: str) -> RunSummary | None:
    try:
        config = from_dict(folder.read_json(RunDir.CONFIG))
    except (ValueError, OSError):  # a folder of something else: a classifier, a search
        return None
    checkpoints = tuple(RunDir(folder).checkpoints())
    num_seen = int(checkpoints[-1].rpartition("/")[2]) if checkpoints else 0
    stored, _ = read_evaluations(folder.child(RunDir.EVALUATION))
    scores = [(one.evaluation.best.scores, one.evaluation.trained_images) for one in stored]
    points = _points(config, [one.evaluation for one in stored])
    less = narrowed(points)
    fid, at = _lowest(scores, "fid")
    _, few_at = _lowest([pair for pair in scores if pair[1] not in less], "fid_few")
    holder, total = holder_of(folder), config.train.total_images
    state = "finished" if num_seen >= total else "stopped"
    if state == "stopped" and _has_ended(config, points):
        state = "ended"
    if holder and not holder.has_died:
        state = f"training on {holder}"
    size = folder.tree_size()
    return RunSummary(folder, name, state, num_seen, total, fid, at, few_at, checkpoints, size)


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
    if run.is_held:
        return []
    best = [RunDir.checkpoint(n) for n in (run.best_num_seen, run.best_few_num_seen) if n]
    old = [name for name in run.checkpoints[:-keep] if name not in best]
    return [(name, run.folder.child(name).tree_size()) for name in old]


def table(runs: list[RunSummary]) -> list[str]:
    """A line for each run under a heading."""
    rows = [("run", "state", "images", "best FID", "checkpoints", "MB")]
    for run in runs:
        images = f"{run.num_seen:,}/{run.total_images:,}"
        fid = "-" if run.best_fid is None else f"{run.best_fid:.2f} at {run.best_num_seen:,}"
        megabytes = f"{run.size / 1e6:,.1f}"
        rows.append((run.name, run.state, images, fid, str(len(run.checkpoints)), megabytes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
