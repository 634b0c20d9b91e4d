"""A search: which trial comes next, what became of it, and when it is over.

All of it runs in the driver's process. What is known is in the records of the trials, so each
answer is a function of them and of the options.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.config.schema import Config
from cbdm_scale.data.groups import GROUPS
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.log_evaluation import run_id_of
from cbdm_scale.tracking.runs import end_run, start_run, tag_run
from tune.objective import Scores, best_strength
from tune.options import SearchConfig
from tune.sampler import next_values, random_values
from tune.space import TAU, Space, fixed, own_value, settings
from tune.trainable import TrialTemplate
from tune.trials import Kind, Status, Trial, TrialStore

MLFLOW_STATUS = {"failed": "FAILED", "stopped": "KILLED"}
"""How a trial ended -> how its MLflow run did, where that is not FINISHED."""


class Search:
    """Hands out trials and records what they report (ray_trials.py asks)."""

    def __init__(
        self,
        options: SearchConfig,
        base: Config,
        space: Space,
        folder: Storage,
        template: TrialTemplate,
    ):
        self.options, self.base, self.space, self.template = options, base, space, template
        self.store = TrialStore(folder)
        self.progress = ProgressBar(options.trials * template.rungs[-1], "images")
        self.progress.start = self._num_seen()
        self.begin(self.suggest, "control", "search")

    def __getstate__(self) -> dict[str, Any]:
        """Without the bar: Tune pickles what it calls, and a bar holds a lock."""
        return {**self.__dict__, "progress": None}

    def begin(self, suggest: Callable[[], Trial | None], *kinds: Kind) -> None:
        """Hand out trials of these kinds: interrupted ones first, then what is suggested."""
        self._interrupted = [t for t in self.store.of_kind(*kinds) if t.status == "running"]
        self._suggest = suggest

    @property
    def has_more(self) -> bool:
        """Whether trials of the search itself are left."""
        return bool(self._interrupted) or self._suggest() is not None

    def next_trial(self) -> Trial | None:
        """The next to begin or to go on with; None when there are no more."""
        if self._interrupted:
            trial = self._interrupted.pop(0)
            self._log(trial, f"goes on after {trial.images:,} images")
            return trial
        suggested = self._suggest()
        if suggested is None:
            return None
        trial = self.store.put(suggested)
        self._log(trial, self.values_text(trial))
        return trial

    def suggest(self) -> Trial | None:
        """The next of the search; every so many is a control, the first one among them."""
        options, number = self.options, len(self.store.of_kind("control", "search"))
        if number >= options.trials:
            return None
        controls = len(self.store.of_kind("control"))
        every = options.trials // options.num_controls
        if number % every == 0 and controls < options.num_controls:
            return self._control(number)
        known = [t for t in self.store.of_kind("search") if set(self.space) <= set(t.params)]
        seed = self.base.seed
        return self._trial(
            number,
            next_values(self.space, known, options.objective, options.searcher, seed, number),
        )

    def suggest_control(self) -> Trial | None:
        """The next control of a population, which is trained before it."""
        number = len(self.store.of_kind("control"))
        return self._control(number) if number < self.options.num_controls else None

    def suggest_member(self) -> Trial | None:
        """The next of a population, drawn at random."""
        number = len(self.store.of_kind("control", "search"))
        if number >= self.options.trials:
            return None
        return self._trial(number, random_values(self.space, self.base.seed, number))

    def _control(self, number: int) -> Trial:
        """DDPM: the first with the row's own values, the others with drawn ones."""
        values = {option: own_value(self.base, option) for option in self.space}
        if number:
            values = random_values(self.space, self.base.seed, number)
        return self._trial(number, {**values, TAU: 0.0}, "control")

    def _trial(self, number: int, values: dict[str, float], kind: Kind = "search") -> Trial:
        params = {**fixed(self.options.space), **values}
        return Trial(id=f"t{number:03d}", kind=kind, params=params, seed=self.base.seed)

    def repetitions(self, finalists: Sequence[Trial]) -> Callable[[], Trial | None]:
        """What hands out the finalists again, with every other seed in turn."""
        wanted = [
            Trial(
                id=f"{trial.id}r{k}",
                kind="final",
                params=trial.params,
                seed=self.base.seed + k,
                of=trial.id,
            )
            for k in range(1, self.options.repeats + 1)
            for trial in finalists
        ]
        left = [trial for trial in wanted if trial.id not in self.store.trials]
        self.progress.total = self._num_seen() + len(left) * self.template.rungs[-1]
        return lambda: left.pop(0) if left else None

    def record(self, trial_id: str, images: int, scores: Scores, info: dict[str, Any]) -> None:
        """An evaluation. With it the trial may have ended: at its last rung, or stopped."""
        last = images >= self.template.rungs[-1]
        status: Status = "finished" if last else "stopped" if info["stopped"] else "running"
        trial = self.store.add_rung(trial_id, images, scores, info["seconds"], status)
        trial = self.store.put(self._updated(trial, images, info))
        ended = "" if status == "running" else f"; {status}"
        self._log(trial, f"{images:,} images: {self._scores_text(trial)}{ended}")
        if status != "running":
            self._end_in_mlflow(trial, f"{status} at {images} images")
        self.progress.reach(self._num_seen())

    def _updated(self, trial: Trial, images: int, info: dict[str, Any]) -> Trial:
        """The trial with what else was reported: its run, its values, whose weights it has."""
        trial = replace(trial, train_seconds=info["train_seconds"] or trial.train_seconds)
        if info["run"] == (trial.run or self.template.run_name(trial.id)):
            return trial
        exploit = {"before": images, "of": info["of"], "params": info["params"]}
        self._log(trial, f"took over the weights of {info['of']}, with {info['params']}")
        exploits = (*trial.exploits, exploit)
        return replace(trial, run=info["run"], params=info["params"], exploits=exploits)

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial that ended without its last evaluation."""
        trial = self.store.end(trial_id, "failed", reason)
        self._log(trial, f"failed: {reason}")
        self._end_in_mlflow(trial, reason)
        self.progress.reach(self._num_seen())

    def _num_seen(self) -> int:
        """Images of all trials; one that ended counts as if it had seen all of them."""
        full = self.template.rungs[-1]
        trials = self.store.trials.values()
        return sum(t.images if t.status == "running" else full for t in trials)

    def _end_in_mlflow(self, trial: Trial, how: str) -> None:
        """MLflow hears from here how a trial ended: its own process may be gone."""
        run, uri = self.template.run_folder(trial), self.template.uri
        tags = self.template.tags(trial.id, trial.kind, trial.params)
        run_id = run_id_of(run)
        if not run_id:  # it failed before it had a run
            run.make_folder()
            name = self.template.run_name(trial.id)
            run_id = start_run(uri, self.base.track.experiment, run, name, {}, tags)
        key = "error" if trial.status == "failed" else "ended"
        rung = str(sum(r.images in self.template.rungs for r in trial.rungs))
        tag_run(uri, run_id, {**tags, key: how, "rung": rung})
        end_run(uri, run_id, MLFLOW_STATUS.get(trial.status, "FINISHED"))

    def _log(self, trial: Trial, text: str) -> None:
        kind = f" ({trial.kind})" if trial.kind != "search" else ""
        self.progress.log(f"{trial.id}{kind} {text}")

    def values_text(self, trial: Trial) -> str:
        """The values of a trial: "tau 0.5, p_uncond 0.1"."""
        values = settings(self.space, trial.params).items()
        return ", ".join(f"{option.rpartition('.')[2]} {value}" for option, value in values)

    def _scores_text(self, trial: Trial) -> str:
        """The newest scores of a trial, at its best strength."""
        scores = trial.rungs[-1].scores
        omega = best_strength(scores, self.options.objective)
        found = scores[omega]
        groups = [f"{g} {found[f'fid_{g}']:.1f}" for g in GROUPS if f"fid_{g}" in found]
        return f"FID {found['fid']:.2f} ({' '.join(groups)}) at omega {omega}"
