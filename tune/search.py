"""A search: which trial comes next, what became of it, and when it is over.

All of it runs in the driver's process. What is known is in the ledger, so each answer is a
function of the ledger and of the options.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.config.schema import Config
from cbdm_scale.data.groups import GROUPS
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking import end_run, run_id_of, start_run, tag_run
from tune.ask import next_values, random_values
from tune.ledger import Kind, Ledger, Status, Trial
from tune.objective import Scores, best_strength
from tune.options import SearchConfig
from tune.space import TAU, Space, fixed, settings
from tune.trial import Plan

AND: dict[Status, str] = {"running": "", "stopped": "; stopped", "finished": "; finished"}


class Search:
    """Hands out trials and keeps what they tell (``on_ray.Host``)."""

    def __init__(
        self, options: SearchConfig, base: Config, space: Space, folder: Storage, plan: Plan
    ):
        self.options, self.base, self.space, self.plan = options, base, space, plan
        self.ledger = Ledger(folder)
        self.fixed = fixed(options.space)
        self.shown = ProgressBar(options.trials * plan.rungs[-1], "images")
        self.shown.start = self.num_shown()
        self.begin(self.new_trial, "control", "search")

    def begin(self, ask: Callable[[], Trial | None], *kinds: Kind) -> None:
        """Hand out trials of these kinds: first those that were interrupted, then ``ask``'s."""
        self.going = [t for t in self.ledger.of_kind(*kinds) if t.status == "running"]
        self.ask = ask

    @property
    def has_more(self) -> bool:
        """Whether trials of the search itself are left."""
        return bool(self.going) or self.ask() is not None

    def next_trial(self) -> Trial | None:
        if self.going:
            trial = self.going.pop(0)
            self.say(trial, f"goes on after {trial.images:,} images")
            return trial
        asked = self.ask()
        if asked is None:
            return None
        trial = self.ledger.put(asked)
        self.say(trial, ", ".join(f"{k} {v}" for k, v in self.words(trial).items()))
        return trial

    def new_trial(self) -> Trial | None:
        """The next of the search, as long as some are wanted."""
        number = len(self.ledger.of_kind("control", "search"))
        return self.invent(number) if number < self.options.trials else None

    def new_control(self) -> Trial | None:
        """The next control of a population, which is trained before it."""
        number = len(self.ledger.of_kind("control"))
        return self.control(number) if number < self.options.num_controls else None

    def new_member(self) -> Trial | None:
        """The next of a population, drawn at random."""
        number = len(self.ledger.of_kind("control", "search"))
        if number >= self.options.trials:
            return None
        params = {**self.fixed, **random_values(self.space, self.base.seed, number)}
        return Trial(id=f"t{number:03d}", kind="search", params=params, seed=self.base.seed)

    def control(self, number: int) -> Trial:
        """DDPM: the first with the row's own values, the others with drawn ones."""
        row = {option: float(self.base.flat()[option]) for option in self.space}
        values = random_values(self.space, self.base.seed, number) if number else row
        params = {**self.fixed, **values, TAU: 0.0}
        return Trial(id=f"t{number:03d}", kind="control", params=params, seed=self.base.seed)

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
        left = [trial for trial in wanted if trial.id not in self.ledger.trials]
        self.shown.total = self.num_shown() + len(left) * self.plan.rungs[-1]
        return lambda: left.pop(0) if left else None

    def invent(self, number: int) -> Trial:
        """The values of trial ``number``; every so many it is a control, the first to begin."""
        seed, options = self.base.seed, self.options
        if number % (options.trials // options.num_controls) == 0 and (
            len(self.ledger.of_kind("control")) < options.num_controls
        ):
            return self.control(number)
        known = [t for t in self.ledger.of_kind("search") if set(self.space) <= set(t.params)]
        values = next_values(
            self.space, known, options.objective, options.searcher, seed, number
        )
        params = {**self.fixed, **values}
        return Trial(id=f"t{number:03d}", kind="search", params=params, seed=seed)

    def took(self, trial_id: str, images: int, scores: Scores, info: dict[str, Any]) -> None:
        """An evaluation. With it the trial may have ended: at its last rung, or stopped."""
        total = self.plan.rungs[-1]
        last = images >= total
        status: Status = "finished" if last else "stopped" if info["stopped"] else "running"
        trial = self.ledger.add_rung(trial_id, images, scores, info["seconds"], status)
        trial = self.ledger.put(self.changed(trial, images, info))
        self.say(trial, f"{images:,} images: {self.figures(trial)}{AND[status]}")
        if status != "running":
            self.close(trial, f"{status} at {images} images")
        self.shown.reach(self.num_shown())

    def changed(self, trial: Trial, images: int, info: dict[str, Any]) -> Trial:
        """The trial with what else was told: its run, its values, whose weights it has."""
        trial = replace(trial, train_seconds=info["train_seconds"] or trial.train_seconds)
        if info["run"] == (trial.run or self.plan.run_name(trial.id)):
            return trial
        took_over = {"before": images, "of": info["of"], "params": info["params"]}
        self.say(trial, f"took over the weights of {info['of']}, with {info['params']}")
        return replace(
            trial,
            run=info["run"],
            params=info["params"],
            exploits=(*trial.exploits, took_over),
        )

    def failed(self, trial_id: str, reason: str) -> None:
        trial = self.ledger.end(trial_id, "failed", reason)
        self.say(trial, f"failed: {reason}")
        self.close(trial, reason)
        self.shown.reach(self.num_shown())

    def num_shown(self) -> int:
        """Images that the trials were shown; one that ended counts as if shown all."""
        full = self.plan.rungs[-1]
        trials = self.ledger.trials.values()
        return sum(t.images if t.status == "running" else full for t in trials)

    def close(self, trial: Trial, how: str) -> None:
        """MLflow hears how a trial ended: its own process may be gone."""
        run, uri = self.plan.run_folder(trial), self.plan.uri
        tags = self.plan.tags(trial.id, trial.kind, trial.params)
        run_id = run_id_of(run)
        if not run_id:  # it failed before it had a run
            run.make_folder()
            experiment = self.base.track.experiment
            run_id = start_run(uri, experiment, run, self.plan.run_name(trial.id), {}, tags)
        ended = "error" if trial.status == "failed" else "ended"
        rung = str(sum(r.images in self.plan.rungs for r in trial.rungs))
        tag_run(uri, run_id, {**tags, ended: how, "rung": rung})
        status = {"failed": "FAILED", "stopped": "KILLED"}.get(trial.status, "FINISHED")
        end_run(uri, run_id, status)

    def say(self, trial: Trial, words: str) -> None:
        kind = f" ({trial.kind})" if trial.kind != "search" else ""
        self.shown.log(f"{trial.id}{kind} {words}")

    def words(self, trial: Trial) -> dict[str, Any]:
        return {o.rpartition(".")[2]: v for o, v in settings(self.space, trial.params).items()}

    def figures(self, trial: Trial) -> str:
        """The newest scores of a trial, at its best strength."""
        scores = trial.rungs[-1].scores
        omega = best_strength(scores, self.options.objective)
        found = scores[omega]
        groups = [f"{g} {found[f'fid_{g}']:.1f}" for g in GROUPS if f"fid_{g}" in found]
        return f"FID {found['fid']:.2f} ({' '.join(groups)}) at omega {omega}"
