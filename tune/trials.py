"""What is known of every trial: a small JSON file each, written whole, in the search's folder.

It is the only memory of a search. What comes next, who is stopped and who has won follow from
it, so the command goes on from it after any kill.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cbdm_scale.storage.folder import Storage
from tune.objective import ObjectiveName, Scores, best_values, scalar

Kind = Literal["control", "search", "final"]
Status = Literal["running", "finished", "stopped", "failed"]
FOLDER = "records"


@dataclass(frozen=True)
class Rung:
    """An evaluation of a trial."""

    images: int
    scores: Scores
    seconds: float
    """Of the trial, from the start of its process to this evaluation, over all starts."""

    at: float
    """When it was recorded, in seconds since 1970: the order in which trials were compared."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting with one seed, and its evaluations so far."""

    id: str
    kind: Kind
    """control: tau is 0, which is DDPM. final: a repetition of ``of`` with another seed."""

    params: Mapping[str, float]
    """Dotted option -> value."""

    seed: int
    of: str = ""
    """The trial that this one repeats."""

    status: Status = "running"
    reason: str = ""
    """Why it failed."""

    rungs: tuple[Rung, ...] = field(default=())
    """In order of images."""

    run: str = ""
    """Name of the run that it is at, if that is not called by its id (pbt.py)."""

    exploits: tuple[Mapping[str, Any], ...] = ()
    """Each time that it took over another trial's weights: images, of, params from there on."""

    train_seconds: float = 0.0
    """Of its training workers alone, if it came to its end in one go; else 0."""

    @property
    def images(self) -> int:
        """At its last evaluation."""
        return self.rungs[-1].images if self.rungs else 0

    @property
    def seconds(self) -> float:
        """Until its last evaluation."""
        return self.rungs[-1].seconds if self.rungs else 0.0

    @property
    def is_control(self) -> bool:
        """Whether it is DDPM."""
        return self.params.get("loss.tau") == 0

    def at(self, images: int) -> Rung | None:
        """The evaluation at this number of images, if there is one."""
        return next((rung for rung in self.rungs if rung.images == images), None)

    def value(self, objective: ObjectiveName, images: int | None = None) -> float:
        """The objective as one number, at the last evaluation or one; infinite without."""
        rung = self.at(self.images if images is None else images)
        return scalar(best_values(rung.scores, objective)) if rung else math.inf


class TrialStore:
    """The trials of a search by their ids, on disk and in memory."""

    def __init__(self, folder: Storage):
        self.folder = folder.child(FOLDER)
        self.trials: dict[str, Trial] = {}
        for name in self.folder.list() if folder.exists(FOLDER) else []:
            try:
                trial: Trial = self.folder.read_json(name, Trial)
            except ValueError as error:
                raise ValueError(f"{error} Remove it: the trial is made again.") from error
            if name != f"{trial.id}.json":
                raise ValueError(
                    f"{self.folder.path(name)} is of the trial {trial.id!r}. Give it the name "
                    "that it had."
                )
            self.trials[trial.id] = trial

    def put(self, trial: Trial) -> Trial:
        """Write the trial, then keep it here; gives it back."""
        self.folder.write_json(f"{trial.id}.json", json.loads(json.dumps(asdict(trial))))
        self.trials[trial.id] = trial
        return trial

    def add_rung(
        self, trial_id: str, images: int, scores: Scores, seconds: float, status: Status
    ) -> Trial:
        """One more evaluation, and what follows from it, in one write."""
        trial = self.trials[trial_id]
        others = [rung for rung in trial.rungs if rung.images != images]
        rungs = [*others, Rung(images, scores, seconds, time.time())]
        rungs.sort(key=lambda rung: rung.images)
        return self.put(replace(trial, rungs=tuple(rungs), status=status))

    def end(self, trial_id: str, status: Status, reason: str = "") -> Trial:
        """The trial ended, with the reason where it failed."""
        return self.put(replace(self.trials[trial_id], status=status, reason=reason))

    def of_kind(self, *kinds: Kind) -> list[Trial]:
        """The trials of these kinds, in the order of their ids."""
        return [t for _, t in sorted(self.trials.items()) if t.kind in kinds]
