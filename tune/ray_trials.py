"""Trials on Ray Tune: a process each, which drives the training workers of its trial.

With pbt.py the only import of ray in this folder. Tune places trials, restarts one whose
process died, and asks a scheduler of its own at every rung. What it knows is replayed from the
records of the trials each time: nothing is read from the files that Tune keeps for itself.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from cbdm_scale.cluster.options import ClusterConfig, wants_gpus
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from tune.objective import ObjectiveName, Scores, best_values, scalar
from tune.options import SchedulerName
from tune.pbt import Pointer, fork_run, last_pointer, make_pbt, param_space, report_with_pointer
from tune.schedule import Spared
from tune.search import Search
from tune.stopping import StopRequest, stop_on_signal
from tune.trainable import TrialTemplate, train_trial
from tune.trials import Trial

DRIVER_BYTES = 200 * 2**20
"""Memory reserved for the process of a trial. It needs no CPU: it waits for its workers."""
FIRST = "t000"
"""The first trial, a control."""
RESTARTS = 3
"""How often the process of a trial may die."""


def max_concurrent(config: ClusterConfig, at_once: int) -> int:
    """How many trials the cluster has room for; ValueError if not for one, or not for those."""
    import ray

    have = ray.cluster_resources()
    fitting = int(have.get("CPU", 0) / config.cpus_per_worker / config.workers + 1e-9)
    gpus = int(have.get("GPU", 0))
    if wants_gpus(config, have):
        fitting = min(fitting, gpus // config.workers)
    if at_once > fitting:
        raise ValueError(
            f"at_once ({at_once}) trials of {config.workers} workers with "
            f"{config.cpus_per_worker:g} CPUs each need more than the cluster has "
            f"({have.get('CPU', 0):g} CPUs, {gpus} GPUs). Try --at-once {fitting}: the others "
            "queue."
        )
    return at_once or fitting


def run_trials(
    search: Search, scheduler: SchedulerName, at_once: int, known: Sequence[Trial] = ()
) -> None:
    """Run what the search hands out until it has no more. ``known``: trials of before.

    Interrupted where the search is asked to stop, once the running trials have saved.
    """
    _silence_tune()
    with stop_on_signal(search) as request:
        _run_trials(search, scheduler, at_once, known, request)


def _run_trials(
    search: Search,
    scheduler: SchedulerName,
    at_once: int,
    known: Sequence[Trial],
    request: StopRequest,
) -> None:
    from ray import tune

    template, objective, pbt = search.template, search.options.objective, scheduler == "pbt"

    def trial(values: dict[str, Any]) -> None:
        _run_trial(values, template, objective, pbt)

    in_turn: dict[str, Any] = {}
    values: dict[str, Any] = {}
    if pbt:
        values = param_space([initial_config(t) for t in iter(search.next_trial, None)])
    else:
        in_turn = {"num_samples": -1, "max_concurrent_trials": at_once}
        in_turn["search_alg"] = _make_searcher(search, request)
    bundle = tune.PlacementGroupFactory([{"CPU": 0, "memory": DRIVER_BYTES}])
    filesystem, path = request.trials.child(RunDir.RAY).pyarrow_filesystem()
    tuner = tune.Tuner(
        tune.with_resources(trial, bundle),
        tune_config=tune.TuneConfig(
            scheduler=make_scheduler(search, scheduler, known),
            trial_name_creator=lambda t: str(t.config["id"]),
            trial_dirname_creator=lambda t: str(t.config["id"]),
            **in_turn,
        ),
        param_space=values,
        run_config=tune.RunConfig(
            name=f"search-{time.time_ns()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[_make_callback(search, request)],
            stop=_make_stopper(request),
            verbose=0,
        ),
    )
    tuner.fit()


def _silence_tune() -> None:
    """Tune's own tables and files are not wanted, nor its tracing of ended workers."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Ctrl-C ends all, as SIGTERM does: Tune's own answer ends its run alone, as if it was done.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def _run_trial(
    values: dict[str, Any], template: TrialTemplate, objective: ObjectiveName, pbt: bool
) -> None:
    """What Tune calls in the process of a trial. The id is the name: pbt copies values."""
    from ray import tune

    trial_id, kind = tune.get_context().get_trial_name(), values["kind"]
    params = {option: values[option] for option in values["options"]}
    pointer = Pointer(trial_id, values["run"], values["known"])
    if pbt:
        pointer = last_pointer() or pointer

    def report(images: int, scores: Scores, seconds: float, trained: float) -> None:
        evaluation = {
            "scores": scores,
            "seconds": values["seconds"] + seconds,
            "train_seconds": trained,
            "run": run,
            "of": pointer.trial,
            "params": params,
        }
        value = scalar(best_values(scores, objective))
        found = {"images": images, "value": value, "evaluation": json.dumps(evaluation)}
        if pbt:
            report_with_pointer(found, Pointer(trial_id, run, images))
        else:
            tune.report(found)

    nothing = {"images": 0, "value": float("inf")}
    if Storage(template.base.cluster.storage).exists(RunDir.STOP):
        tune.report(nothing)  # Tune asks every trial for a number
        return
    try:
        run = pointer.run or template.run_name(trial_id)
        if pbt and pointer.images:
            run = fork_run(template, trial_id, params, pointer)
        config = template.config(trial_id, kind, params, values["seed"], run)
        tags = template.tags(trial_id, kind, params)
        saved = train_trial(config, tags, pointer.images, report)
    except (ValueError, RuntimeError, OSError) as error:
        tune.report({**nothing, "error": f"{type(error).__name__}: {error}"})
        return
    if saved is not None:
        tune.report({**nothing, "saved": saved})


def initial_config(trial: Trial) -> dict[str, Any]:
    """What the process of a trial is begun with."""
    return {
        "id": trial.id,
        "kind": trial.kind,
        "seed": trial.seed,
        "options": list(trial.params),
        "run": trial.run,
        "known": trial.images,
        "seconds": trial.seconds,
        **trial.params,
    }


def _make_searcher(search: Search, request: StopRequest) -> Any:
    """The search as what Tune asks for the next trial."""
    from ray.tune.search import Searcher

    class TrialSearcher(Searcher):  # type: ignore[misc]
        def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            trial = None if request.signal else search.next_trial()
            return initial_config(trial) if trial else str(Searcher.FINISHED)

        def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
            pass

        def save(self, checkpoint_path: str) -> None:
            pass  # the records of the trials are the memory

    return TrialSearcher(metric="value", mode="min")


def make_scheduler(search: Search, scheduler: SchedulerName, known: Sequence[Trial]) -> Any:
    """Tune's scheduler, with what was reported before.

    ASHA stops neither the first control, without which nothing is known of tau, nor the best of
    any kind at a rung so far (``Spared``).
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    rungs, options = search.template.rungs, search.options
    if scheduler == "pbt":
        return make_pbt(search.space, rungs)
    if scheduler != "asha":
        return FIFOScheduler()

    spared = Spared(search.space)

    class SparingASHA(ASHAScheduler):  # type: ignore[misc]
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = str(super().on_trial_result(controller, trial, result))
            ahead = spared.is_best(trial.config, result["images"], result["value"])
            goes_on = result["images"] < rungs[-1] and (ahead or trial.config["id"] == FIRST)
            return str(self.CONTINUE) if goes_on else action

    asha = SparingASHA(
        time_attr="images",
        metric="value",
        mode="min",
        grace_period=rungs[0],
        max_t=rungs[-1],
        reduction_factor=options.eta,
    )
    replayed = sorted(
        ((rung.at, rung.images, trial) for trial in known for rung in trial.rungs),
        key=lambda found: found[:2],
    )
    stubs = {t.id: SimpleNamespace(trial_id=t.id, config=initial_config(t)) for t in known}
    for stub in stubs.values():
        asha.on_trial_add(None, stub)
    for _, images, trial in replayed:
        value = trial.value(options.objective, images)
        asha.on_trial_result(None, stubs[trial.id], {"images": images, "value": value})
    return asha


def _make_stopper(request: StopRequest) -> Any:
    """When Tune ends whatever it has: once a request to stop is over."""
    from ray.tune import Stopper

    class UntilSaved(Stopper):  # type: ignore[misc]
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return request.is_over

    return UntilSaved()


def _make_callback(search: Search, request: StopRequest) -> Any:
    """What Tune reports, recorded in the search."""
    from ray.tune import Callback

    class Recorder(Callback):  # type: ignore[misc]
        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            request.look([str(trial) for trial in trials if trial.status == "RUNNING"])

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "error" in result:
                search.fail(str(trial), result["error"])
            elif "saved" in result:
                request.add_saved(str(trial), result["saved"])
            elif "evaluation" in result:
                info = json.loads(result["evaluation"]) | {"stopped": bool(result.get("done"))}
                search.record(str(trial), result["images"], info.pop("scores"), info)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            error = trial.get_error()
            first = str(error).strip().splitlines() if error else []
            reason = first[-1] if first else "no reason was given"
            search.fail(str(trial), f"its process died {RESTARTS + 1} times: {reason}")

    return Recorder()
