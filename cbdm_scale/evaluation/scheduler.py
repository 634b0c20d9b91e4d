"""Evaluations of a run at intervals: who makes them, and what follows from them.

A step that crosses train.eval_every saves a checkpoint, which is then evaluated: beside
training where that is possible (``eval.background``), one after the other, or by the training
workers. Either way the record (store.py) holds the same bytes, on CPUs, and on GPUs of one
kind with train.deterministic. Nothing else is remembered: which checkpoint is the best, which
wait, and whether the tail is being lost follow from these files, so neither a kill nor a late
arrival changes them.
"""

import math
import time
from collections import deque

from torch import nn

from cbdm_scale.cluster.background import BackgroundWorker, Finished
from cbdm_scale.cluster.options import Log
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.cautions import noise_warning
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.history import (
    ScorePoint,
    TailWarning,
    best_point,
    end_of_patience,
    narrowed,
    tail_warning,
)
from cbdm_scale.evaluation.references import Check
from cbdm_scale.evaluation.results import Evaluation, Scores, metric_name
from cbdm_scale.evaluation.store import METRICS, training_home
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import World, gather_errors
from cbdm_scale.training.loop import is_eval_due

_LOG_EVERY_S = 10.0
"""Seconds between two lines on how far the evaluation is that the end of a run waits for."""
_POLL_EVERY_S = 1.0
"""Seconds between two polls of it, and of whether the run is asked to stop."""


class EvaluationScheduler:
    """Every rank calls ``begin``, ``due`` and ``end``; the rest is rank 0's."""

    def __init__(
        self,
        config: Config,
        evaluator: Evaluator,
        world: World,
        run: Storage,
        tracker: Tracker,
        log: Log,
        background: BackgroundWorker | None,
    ):
        self.config, self.evaluator, self.world, self.run = config, evaluator, world, run
        self.tracker, self.log = tracker, log
        self.background = background
        """None: the training workers evaluate."""
        self.omega = config.eval.guidance[0]
        self.points: list[ScorePoint] = []
        self.waiting: deque[int] = deque()
        self.best: ScorePoint | None = None
        self.best_few: ScorePoint | None = None
        """The lowest FID of the few classes."""
        self.warning: TailWarning | None = None
        self.warned: set[str] = set()
        """Kinds of the warnings there have been."""
        self.ended = ""
        """Why the run ends before its last image; "" while it does not."""
        self.scores: Scores = {}
        self.final: Evaluation | None = None

    @property
    def _is_on(self) -> bool:
        return self.evaluator.extractor is not None

    def begin(self, num_seen: int) -> None:
        """Take up what a run found before, and what it was about to find, at its start."""
        if not self._is_on:
            return
        if self.world.rank == 0:
            for one, found in self.evaluator.history(self.omega).items():
                if one <= num_seen:
                    self._log_metrics(one, found)
            self._choose_best()
            self.waiting.extend(self._unevaluated(num_seen))
            if self.ended:
                self.log(f"ended: {self.ended}. A larger --train.patience, or 0, goes on.")
        self._dispatch()

    def _unevaluated(self, num_seen: int) -> list[int]:
        """Checkpoints that were to be evaluated and never were."""
        train, found = self.config.train, []
        for name in RunDir(self.run).checkpoints():
            number = int(name.rpartition("/")[2])
            if (
                number <= num_seen
                and number < train.total_images
                and is_eval_due(number, train)
                and not training_home(self.run, number).exists(METRICS)
            ):
                found.append(number)
        return found

    def due(self, num_seen: int, net: nn.Module) -> None:
        """Evaluate the checkpoint that was just saved, now or beside what comes."""
        if not self._is_on or num_seen >= self.config.train.total_images:
            return  # ``end`` does that
        if self.world.rank == 0:
            self.poll()
            self.waiting.append(num_seen)
        self._dispatch(num_seen, net)

    def _dispatch(self, num_seen: int = -1, net: nn.Module | None = None) -> None:
        """Hand what waits to the background worker, or evaluate it here.

        ``net``: the network after ``num_seen`` images, where it is at hand.
        """
        mine: list[int] = []
        if self.world.rank == 0 and not self._start_next():
            mine = list(self.waiting)
        for number in self.world.gather(mine)[0]:
            self._evaluate_now(number, net if number == num_seen else None)
            if self.world.rank == 0:
                self.waiting.popleft()

    def _start_next(self) -> bool:
        """Whether the background worker has the first one that waits, or another, in hand."""
        background = self.background
        if background is None or not self.waiting:
            return not self.waiting
        if not background.is_busy:
            if self.config.eval.background == "auto" and not background.has_room():
                return False
            background.start(self.waiting.popleft())
        return True

    def _evaluate_now(self, num_seen: int, net: nn.Module | None = None) -> None:
        """All ranks evaluate; training waits. Damaged checkpoints are named and left out."""
        problem = ""
        if net is None:
            try:
                net = self.evaluator.load(num_seen)
            except ValueError as error:
                problem = str(error)
        problems = gather_errors(self.world, problem)
        if problems or net is None:
            if self.world.rank == 0:
                self.log(f"not evaluated: {problems}")
            return
        evaluation = self.evaluator.evaluate(net, num_seen, self.config.eval.at_intervals)
        if self.world.rank == 0:
            self._record(num_seen, evaluation)

    def poll(self) -> None:
        """Record what the background worker has found, and hand it the next."""
        background = self.background
        if background is None or not background.is_busy:
            return
        finished = background.poll()
        if finished is not None:
            self._record_finished(finished)
            self._start_next()

    def _record_finished(self, finished: Finished) -> None:
        if finished.reason:
            self.log(
                f"the evaluation of {finished.job:,} images beside training failed: "
                f"{finished.reason}. The training workers make it, and those that follow."
            )
            self.waiting.appendleft(finished.job)
            self.background = None
        else:
            self._record(finished.job, finished.result)

    def _record(self, num_seen: int, evaluation: Evaluation) -> None:
        """One more evaluation: log it, print it, and see which checkpoint is the best now."""
        warned, ended = set(self.warned), self.ended
        scores = self._log_metrics(num_seen, evaluation).scores
        fid = f"FID {scores['fid']:.2f} at omega {as_text(self.omega)}"
        rest = " ".join(f"{k} {v:.2f}" for k, v in scores.items() if k != "fid")
        self.log(f"{num_seen:>9,} images | {fid} | {rest}")
        if self.warning and self.warning.kind not in warned:
            self.log(f"warning: {self.warning}")
            self.tracker.tags({"tail_warning": str(self.warning)})
        self._choose_best()
        if self.ended and not ended:
            self.log(f"ended: {self.ended}")
            self.tracker.tags({"ended": self.ended})

    def _log_metrics(self, num_seen: int, evaluation: Evaluation) -> ScorePoint:
        """Bring an evaluation to the tracker, which drops what it had before."""
        point = ScorePoint.of(num_seen, evaluation, self.omega)
        others = [p for p in self.points if p.num_seen != num_seen]
        self.points = sorted([*others, point], key=lambda p: p.num_seen)
        self.warning = tail_warning(self.points)
        if self.warning:
            self.warned.add(self.warning.kind)
        metrics = evaluation.metrics(self.config.eval)
        if self.warned:  # a line at 0 would tell nobody anything
            metrics[metric_name("tail_warning")] = float(self.warning is not None)
        self.tracker.scalars(num_seen, metrics)
        return point

    def _choose_best(self) -> None:
        """The best checkpoints of those that are there, their names in the tracker, and whether
        the run ends for want of a better one."""
        names = set(RunDir(self.run).checkpoints())
        there = [p for p in self.points if RunDir.checkpoint(p.num_seen) in names]
        by, patience = self.config.eval.best_by, self.config.train.patience
        less = narrowed(self.points)
        few = best_point(there, "fid_few", less)
        best = few if by == "fid_few" else best_point(there, by)
        for point, before, aliases in (
            (best, self.best, ["newest", "best"]),
            (few, self.best_few, ["best-few"]),
        ):
            if point and point != before:
                where = self.run.path(RunDir.checkpoint(point.num_seen))
                self.tracker.model(point.num_seen, where, aliases)
        self.best, self.best_few = best, few
        train = self.config.train
        on_the_way = [p for p in self.points if is_eval_due(p.num_seen, train)]
        if end := end_of_patience(on_the_way, by, patience):
            lowest, last = end
            tried = [p for p in on_the_way if lowest.num_seen < p.num_seen <= last.num_seen]
            below = any(p.scores.get(by, math.inf) < lowest.scores[by] for p in tried)
            self.ended = (
                f"{by} has not been below {lowest.scores[by]:.2f}, that of "
                f"{lowest.num_seen:,} images, {'but with less variety, ' if below else ''}in "
                f"{patience} evaluations (train.patience), the last at {last.num_seen:,} images"
            )

    def remarks(self) -> list[str]:
        """What the end of a run says of its checkpoints, a line each."""
        lines, by = [], self.config.eval.best_by
        if self.final and (words := noise_warning(self.final)):
            lines.append(f"warning  {words}")
        if self.ended:
            lines.append(f"ended    {self.ended}")
        for title, point, score in (
            ("best", self.best, by),
            ("best-few", self.best_few, "fid_few"),
        ):
            if point and point.num_seen != self.points[-1].num_seen:
                where = self.run.path(RunDir.checkpoint(point.num_seen))
                lines.append(f"{title:<8} {where} ({score} {point.scores[score]:.2f})")
        if self.warning:
            lines.append(f"tail     {self.warning}")
        return lines

    @property
    def needed(self) -> set[int]:
        """Checkpoints that must stay: the best ones, those that wait or are evaluated now."""
        needed = set(self.waiting)
        if self.background and self.background.is_busy:
            needed.add(self.background.job)
        return needed | {point.num_seen for point in (self.best, self.best_few) if point}

    def end(self, num_seen: int, net: nn.Module) -> None:
        """Evaluate all that waits, and the run's last network at every strength.

        StopAsked if the run is asked to stop; what is missing is made when it is started again.
        """
        if not self._is_on:
            return
        with self.world.monitored_barrier(self.evaluator.stopped) as check:
            if self.world.rank == 0:
                self._wait(check)
        self.background = None
        self._dispatch()
        omegas = self.config.eval.guidance
        for count in range(1, len(omegas) + 1):  # each is on record before the next
            final = self.evaluator.evaluate(net, num_seen, omegas[:count])
        self.scores, self.final = final.scores, final
        if self.world.rank == 0:
            self._record(num_seen, final)

    def _wait(self, check: Check) -> None:
        """Wait for the evaluation under way; one that has found no place comes back."""
        background, logged = self.background, time.monotonic()
        while background and background.is_busy:
            check()
            if not background.place():
                self.waiting.appendleft(background.job)
                background.close()
                return
            finished = background.poll(_POLL_EVERY_S)
            if finished is not None:
                self._record_finished(finished)
            elif time.monotonic() - logged > _LOG_EVERY_S:
                logged = time.monotonic()
                progress = background.progress()
                self.log(
                    f"waiting for the evaluation of {background.job:,} images ({progress})"
                )

    def close(self) -> None:
        """End the evaluation under way in the background."""
        if self.background and self.background.is_busy:
            self.background.close()
