"""One trial: a run of the train command in this process, reported rung by rung.

The process drives training workers of its own and never trains itself. What it reports is read
from the run folder, so a trial that goes on after a kill reports what was found before, too.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cbdm_scale.cluster.stop import StopFile
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import as_key
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from tune.objective import Scores
from tune.space import TAU, as_options, mlflow_key
from tune.trials import Kind, Trial

WATCH_EVERY_S = 0.25
REFERENCE = ".reference"
"""Folder beside the trials' runs."""
Report = Callable[[int, Scores, float, float], None]
"""(images, scores, seconds of this process so far, seconds of the workers if it is the end)"""


@dataclass(frozen=True, kw_only=True)
class TrialTemplate:
    """What all trials of a search share."""

    base: Config
    """The run that the parameters are laid over; its storage is the folder of the trials."""

    name: str
    """Of the search; a trial's run is called by it and the trial's id."""

    rungs: tuple[int, ...]
    uri: str
    parent: str
    """MLflow run of the search."""

    def run_name(self, trial_id: str) -> str:
        """What the run of a trial is called."""
        return f"{self.name}-{trial_id}"

    def run_folder(self, trial: Trial) -> Storage:
        """Folder of the run that a trial is at."""
        return Storage(self.base.cluster.storage).child(trial.run or self.run_name(trial.id))

    def config(
        self, trial_id: str, kind: Kind, params: Mapping[str, float], seed: int, run: str = ""
    ) -> Config:
        """The run of a trial. With tau 0 it is DDPM, which costs one prediction a step, with
        any other it is CBDM.

        A repetition races with nobody: it is evaluated at its end only.
        """
        options = as_options(self.base, params)
        if TAU in params:
            options["loss.name"] = "cbdm" if params[TAU] else "ddpm"
        config = with_options(self.base, options)
        if kind == "final":
            config = replace(config, train=replace(config.train, eval_at=()))
        return replace(config, name=run or self.run_name(trial_id), seed=seed)

    def tags(self, trial_id: str, kind: Kind, params: Mapping[str, float]) -> dict[str, str]:
        """Tags of a trial's MLflow run, besides those of every run."""
        given = {f"search.{mlflow_key(o)}": f"{value:g}" for o, value in params.items()}
        return {
            "mlflow.parentRunId": self.parent,
            "search": self.name,
            "trial": trial_id,
            "kind": kind,
            **given,
        }


def train_trial(
    config: Config, tags: Mapping[str, str], known: int, report: Report
) -> int | None:
    """Train to the end, reporting each evaluation after ``known`` images; raises what fails.

    Where a file "stop" is in the folder of the trials, the run is asked to save and end; then
    the images of its checkpoint are given, else None.
    """
    from cbdm_scale.runs.launch import launch_run

    began = time.monotonic()
    ended: dict[str, Any] = {}

    def work() -> None:
        try:
            ended["outcome"] = launch_run(config, tags)
        except BaseException as error:  # raised again in the trial's own thread
            ended["error"] = error

    trials = Storage(config.cluster.storage)
    run, stop = trials.child(config.run_name), StopFile(trials)
    share_reference(config, run)
    thread = threading.Thread(target=work, daemon=True, name="training")
    thread.start()
    total, over = config.train.total_images, False
    while not over:
        thread.join(WATCH_EVERY_S)
        over = not thread.is_alive()
        if stop.is_set() and not over and not run.exists(RunDir.STOP):
            run.write_bytes(RunDir.STOP, b"")  # again where the run's launch takes it for old
        for images, scores in evaluations(run, config, known):
            if over or images < total:
                known = images
                trained = ended["outcome"]["seconds"] if "outcome" in ended else 0.0
                share_reference(config, run)
                report(images, scores, time.monotonic() - began, trained)
    stop.close()
    run.remove(RunDir.STOP)
    if "error" in ended:
        raise ended["error"]
    outcome = ended["outcome"]
    return outcome["progress"]["num_seen"] if outcome["how"] == "stopped" else None


def share_reference(config: Config, run: Storage) -> None:
    """Features of the real images are the same for all trials: the first computes them."""
    shared = Storage(config.cluster.storage).child(REFERENCE)
    for there, here, folder in ((shared, run, ""), (run, shared, RunDir.EVALUATION)):
        home = there.child(folder) if folder else there
        for name in home.list():
            target = name if folder else f"{RunDir.EVALUATION}/{name}"
            if name.startswith(("real-", "train-")) and not here.exists(target):
                here.write_bytes(target, home.read_bytes(name))


def evaluations(run: Storage, config: Config, after: int = -1) -> list[tuple[int, Scores]]:
    """The evaluations of a run that are whole, in order of images; those up to ``after`` images
    are not read, which this is asked too often for."""
    from cbdm_scale.evaluation.store import training_evaluations

    batch = config.train.batch_size
    due = {-(-at // batch) * batch for at in (*config.train.eval_at, config.train.total_images)}
    asked = {as_key(omega) for omega in config.eval.guidance}
    found: list[tuple[int, Scores]] = []
    for num_seen, evaluation in training_evaluations(run, after).items():
        scores = evaluation.scores
        if num_seen in due and asked <= scores.keys():
            found.append((num_seen, {omega: scores[omega] for omega in sorted(asked)}))
    return found
