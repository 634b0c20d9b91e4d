"""A search: which trial comes next, what became of it, and when it is over.

All of it runs in the driver's process. What is known is in the ledger, so each answer is a
function of the ledger and of the options.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cbdm_scale.cluster import connect
from cbdm_scale.config import Config, flatten, is_runtime
from cbdm_scale.labels import GROUPS
from cbdm_scale.storage import Storage
from cbdm_scale.tracking import default_tracking_uri, end_run, run_id_of, start_run, tag_run
from cbdm_scale.train import check_extractor, find_data
from tune.ask import next_values, random_values
from tune.ledger import Ledger, Trial
from tune.objective import best_strength, best_values
from tune.on_ray import Racing, room, run_trials
from tune.options import SearchConfig, all_rungs
from tune.schedule import expected_images
from tune.space import TAU, Space, fixed, settings
from tune.trial import Plan

HEADER = "search.json"


class Search:
    """Hands out trials and keeps what they tell (``on_ray.Host``)."""

    def __init__(self, options: SearchConfig, base: Config, space: Space, folder: Storage):
        self.options, self.base, self.space, self.folder = options, base, space, folder
        self.ledger = Ledger(folder)
        self.fixed = fixed(options.space)
        self.plan: Plan
        self.unfinished = [t for t in self.ledger.of_kind("control", "search") if _open(t)]
        self.going: Iterator[Trial] = iter(self.unfinished)

    def next_trial(self) -> Trial | None:
        """First those that were interrupted, then new ones as long as some are wanted."""
        for trial in self.going:
            self.say(trial, f"goes on after {trial.images:,} images")
            return trial
        number = len(self.ledger.of_kind("control", "search"))
        if number >= self.options.trials:
            return None
        trial = self.ledger.put(self.invent(number))
        self.say(trial, ", ".join(f"{k} {v}" for k, v in self.words(trial).items()))
        return trial

    def invent(self, number: int) -> Trial:
        """The values of trial ``number``; every so many it is a control, the first to begin."""
        seed, options = self.base.seed, self.options
        if number % (options.trials // options.num_controls) == 0 and (
            len(self.ledger.of_kind("control")) < options.num_controls
        ):
            row = {o: float(self.base.flat()[o]) for o in self.space}
            values = random_values(self.space, seed, number) if number else row
            params = {**self.fixed, **values, TAU: 0.0}
            return Trial(id=f"t{number:03d}", kind="control", params=params, seed=seed)
        known = [t for t in self.ledger.of_kind("search") if set(self.space) <= set(t.params)]
        values = next_values(
            self.space, known, options.objective, options.searcher, seed, number
        )
        params = {**self.fixed, **values}
        return Trial(id=f"t{number:03d}", kind="search", params=params, seed=seed)

    def took(
        self, trial_id: str, images: int, scores: dict[str, Any], info: dict[str, Any]
    ) -> None:
        """An evaluation. With it the trial may have ended: at its last rung, or stopped."""
        total = self.plan.rungs[-1]
        last = images >= total
        status = "finished" if last else "stopped" if info["stopped"] else "running"
        before = self.ledger.trials[trial_id].seconds
        trial = self.ledger.add_rung(trial_id, images, scores, before + info["seconds"], status)
        if info["train_seconds"]:
            trial = self.ledger.put(replace(trial, train_seconds=info["train_seconds"]))
        self.say(trial, f"{images:,} images: {self.figures(trial)}{_AND[status]}")
        if status != "running":
            self.close(trial, f"{status} at {images} images")

    def failed(self, trial_id: str, reason: str) -> None:
        trial = self.ledger.end(trial_id, "failed", reason)
        self.say(trial, f"failed: {reason}")
        self.close(trial, reason)

    def close(self, trial: Trial, how: str) -> None:
        """MLflow hears how a trial ended: its own process may be gone."""
        run, uri = self.plan.run_folder(trial.id), self.plan.uri
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
        print(f"{trial.id}{kind} {words}", flush=True)

    def words(self, trial: Trial) -> dict[str, Any]:
        return {o.rpartition(".")[2]: v for o, v in settings(self.space, trial.params).items()}

    def figures(self, trial: Trial) -> str:
        """The newest scores of a trial, at its best strength."""
        scores = trial.rungs[-1].scores
        omega = best_strength(scores, self.options.objective)
        found = scores[omega]
        groups = [f"{g} {found[f'fid_{g}']:.1f}" for g in GROUPS if f"fid_{g}" in found]
        return f"FID {found['fid']:.2f} ({' '.join(groups)}) at omega {omega}"

    def racing(self, at_once: int) -> Racing:
        return Racing(
            objective=self.options.objective,
            rungs=self.plan.rungs,
            eta=self.options.eta,
            asha=self.options.scheduler == "asha",
            at_once=at_once,
        )


_AND = {"running": "", "stopped": "; stopped", "finished": "; finished"}


def _open(trial: Trial) -> bool:
    return trial.status == "running"


def identity(options: SearchConfig, base: Config, space: Space) -> dict[str, Any]:
    """What makes it this search and no other: it cannot change when the search goes on."""
    kept = ("eval.omegas", "eval.num_images", "eval.seed", "eval.extractor", "eval.scan")
    runs = {
        option: value
        for option, value in base.flat().items()
        if not is_runtime(option) or option.startswith(("sample.", *kept))
    }
    found = {
        "objective": options.objective,
        "scheduler": options.scheduler,
        "searcher": options.searcher,
        "rungs": list(all_rungs(options, base)),
        "eta": options.eta,
        "space": {option: str(dimension) for option, dimension in sorted(space.items())},
        "fixed": fixed(options.space),
        "runs": runs,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def search_name(options: SearchConfig, base: Config, space: Space) -> str:
    if base.name:
        return base.name
    text = json.dumps(identity(options, base, space), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{base.dataset}-{options.objective}-{digest}"


def claim_search(folder: Storage, mine: dict[str, Any]) -> None:
    """The folder with its header; ValueError if it is another search's."""
    if folder.exists(HEADER):
        before, now = flatten(folder.read_json(HEADER)), flatten(mine)
        differing = [
            f"{key} ({before.get(key, 'absent')} there, {now.get(key, 'absent')} here)"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if differing:
            raise ValueError(
                f"name ({folder.url.rpartition('/')[2]}) is a search with other options: "
                f"{', '.join(differing)}. Choose another --name, or the options it began with."
            )
    folder.make_folder()
    folder.write_json(HEADER, mine)


def describe_search(options: SearchConfig, base: Config, space: Space) -> dict[str, str]:
    """What a search would do, in words."""
    steps = all_rungs(options, base)
    every = options.trials * steps[-1]
    asha = expected_images(options.trials, steps, options.eta)
    name = search_name(options, base, space)
    return {
        "search": Storage(base.cluster.storage).child("search").child(name).url,
        **{option: str(dimension) for option, dimension in space.items()},
        **{option: f"{value:g} (fixed)" for option, value in fixed(options.space).items()},
        "controls (tau 0)": f"{options.num_controls} of {options.trials} trials",
        "rungs": ", ".join(f"{images:,}" for images in steps),
        "images, every trial to its end": f"{every:,}",
        "images, expected": f"{asha if options.scheduler == 'asha' else every:,}",
        "guidance strengths": ", ".join(f"{omega:g}" for omega in base.eval.omegas),
    }


def carry_out_search(options: SearchConfig, base: Config, space: Space) -> int:
    """Check, run all trials, and say what was found. The exit status."""
    storage = Storage(base.cluster.storage)
    name = search_name(options, base, space)
    folder = storage.child("search").child(name)
    if options.gpus_per_trial:
        cluster = replace(base.cluster, workers=options.gpus_per_trial, device="gpu")
        base = replace(base, cluster=cluster)
    steps = all_rungs(options, base)
    manifest = find_data(base)
    check_extractor(base, manifest)
    connect(base.cluster)
    at_once = room(base.cluster, options.at_once)
    storage.check_writable()
    claim_search(folder, identity(options, base, space))
    uri = base.track.uri or default_tracking_uri(storage)
    told = {o: str(v) for o, v in flatten(identity(options, base, space)).items()}
    tags = {"search": name, "kind": "search", "run_folder": folder.url}
    parent = start_run(uri, base.track.experiment, folder, name, told, tags)
    search = Search(options, base, space, folder)
    search.plan = Plan(
        base=trial_base(base, folder, uri, steps),
        name=name,
        rungs=steps,
        uri=uri,
        parent=parent,
    )
    print(f"search {name} in {folder.url}, {options.trials} trials, {at_once} at once")
    status = "FAILED"
    try:
        run_trials(
            search,
            search.plan,
            search.racing(at_once),
            search.ledger.of_kind("control", "search"),
        )
        status = "FINISHED"
    finally:
        end_run(uri, parent, status)
    say_ranking(search)
    return 0


def trial_base(base: Config, folder: Storage, uri: str, steps: tuple[int, ...]) -> Config:
    """The run that all trials share: evaluated at the rungs, by its own workers, in turn."""
    return replace(
        base,
        cluster=replace(base.cluster, storage=folder.child("trials").url),
        track=replace(base.track, uri=uri),
        train=replace(base.train, eval_at=steps[:-1], eval_every=0),
        eval=replace(base.eval, beside="never"),
    )


def say_ranking(search: Search) -> None:
    done = [t for t in search.ledger.of_kind("control", "search") if t.rungs]
    objective = search.options.objective
    for trial in sorted(done, key=lambda t: (-t.images, t.value(objective)))[:10]:
        values = best_values(trial.rungs[-1].scores, objective)
        print(f"{trial.id} {trial.images:>9,} images  {values}  {search.words(trial)}")
