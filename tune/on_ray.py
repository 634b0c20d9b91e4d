"""Trials on Ray Tune: a process each, which drives the training workers of its trial.

With population.py the only import of ray in this folder. Tune places trials, restarts one whose
process died, and asks a scheduler of its own at every rung. What it knows is told to it anew
from the ledger each time: nothing is read from the files that Tune keeps for itself.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from cbdm_scale.cluster import ClusterConfig
from cbdm_scale.storage.folder import Storage
from tune.ledger import Trial
from tune.objective import ObjectiveName, Scores, best_values, scalar
from tune.options import SchedulerName
from tune.population import Place, members, population, report, take_over, told_place
from tune.space import Space
from tune.trial import Plan, carry_out_trial

DRIVER_BYTES = 200 * 2**20
"""Memory reserved for the process of a trial. It needs no CPU: it waits for its workers."""
RESTARTS = 3
"""How often the process of a trial may die."""


class Host(Protocol):
    """What a search wants of its trials (``search.Search``); all in the driver's process."""

    def next_trial(self) -> Trial | None:
        """The next to begin or to go on with; None when there are no more."""

    def took(self, trial_id: str, images: int, scores: Scores, info: dict[str, Any]) -> None:
        """An evaluation; ``info`` says its seconds, and whether it was the trial's last."""

    def failed(self, trial_id: str, reason: str) -> None:
        """A trial that ends without its last evaluation."""


@dataclass(frozen=True, kw_only=True)
class Racing:
    """How trials are run against each other."""

    objective: ObjectiveName
    rungs: tuple[int, ...]
    eta: int
    scheduler: SchedulerName
    space: Space
    at_once: int


def room(config: ClusterConfig, at_once: int) -> int:
    """How many trials the cluster has room for; ValueError if not for one, or not for those."""
    import ray

    have = ray.cluster_resources()
    fitting = int(have.get("CPU", 0) / config.cpus_per_worker / config.workers + 1e-9)
    gpus = int(have.get("GPU", 0))
    if config.device == "gpu" or (config.device == "auto" and gpus >= config.workers):
        fitting = min(fitting, gpus // config.workers)
    if at_once > fitting:
        raise ValueError(
            f"at_once ({at_once}) trials of {config.workers} workers with "
            f"{config.cpus_per_worker:g} CPUs each need more than the cluster has "
            f"({have.get('CPU', 0):g} CPUs, {gpus} GPUs). Try --at-once {fitting}: the others "
            "queue."
        )
    return at_once or fitting


def run_trials(host: Host, plan: Plan, racing: Racing, told: Sequence[Trial]) -> None:
    """Run what the host hands out until it has no more. ``told``: trials of before."""
    quiet()
    from ray import tune

    def trial(values: dict[str, Any]) -> None:
        run_trial(values, plan, racing)

    in_turn: dict[str, Any] = {"num_samples": -1, "max_concurrent_trials": racing.at_once}
    values: dict[str, Any] = {}
    if racing.scheduler == "pbt":
        in_turn = {}
        values = members([first_values(t) for t in iter(host.next_trial, None)])
    else:
        in_turn["search_alg"] = asker(host)
    bundle = tune.PlacementGroupFactory([{"CPU": 0, "memory": DRIVER_BYTES}])
    filesystem, path = Storage(plan.base.cluster.storage).child(".ray").pyarrow_filesystem()
    tuner = tune.Tuner(
        tune.with_resources(trial, bundle),
        tune_config=tune.TuneConfig(
            scheduler=race(racing, told),
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
            callbacks=[teller(host)],
            verbose=0,
        ),
    )
    tuner.fit()


def quiet() -> None:
    """Tune's own tables and files are not wanted, nor its tracing of ended workers."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def run_trial(values: dict[str, Any], plan: Plan, racing: Racing) -> None:
    """What Tune calls in the process of a trial. The id is the name: pbt copies values."""
    from ray import tune

    trial_id, kind = tune.get_context().get_trial_name(), values["kind"]
    params = {option: values[option] for option in values["options"]}
    place = Place(trial_id, values["run"], values["known"])
    if racing.scheduler == "pbt":
        place = told_place() or place
    told = {"of": place.trial, "params": params}

    def tell(images: int, scores: Scores, seconds: float, trained: float) -> None:
        found = {
            "images": images,
            "value": scalar(best_values(scores, racing.objective)),
            "told": json.dumps(
                {
                    "scores": scores,
                    "seconds": values["seconds"] + seconds,
                    "train_seconds": trained,
                    "run": run,
                    **told,
                }
            ),
        }
        if racing.scheduler == "pbt":
            report(found, Place(trial_id, run, images))
        else:
            tune.report(found)

    try:
        run = place.run or plan.run_name(trial_id)
        if racing.scheduler == "pbt" and place.images:
            run = take_over(plan, trial_id, params, place)
        config = plan.config(trial_id, kind, params, values["seed"], run)
        carry_out_trial(config, plan.tags(trial_id, kind, params), place.images, tell)
    except (ValueError, RuntimeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        tune.report({"images": 0, "value": float("inf"), "error": reason})


def first_values(trial: Trial) -> dict[str, Any]:
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


def asker(host: Host) -> Any:
    """The host as what Tune asks for the next trial."""
    from ray.tune.search import Searcher

    class Asker(Searcher):  # type: ignore[misc]
        def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            trial = host.next_trial()
            if trial is None:
                return str(Searcher.FINISHED)
            return first_values(trial)

        def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
            pass

        def save(self, checkpoint_path: str) -> None:
            pass  # the ledger remembers

    return Asker(metric="value", mode="min")


def race(racing: Racing, told: Sequence[Trial]) -> Any:
    """The scheduler, with what was reported before.

    The first control goes to its end whatever ASHA says: without it nothing is known of tau.
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if racing.scheduler == "pbt":
        return population(racing.space, racing.rungs)
    if racing.scheduler != "asha":
        return FIFOScheduler()

    class Race(ASHAScheduler):  # type: ignore[misc]
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = str(super().on_trial_result(controller, trial, result))
            goes_on = result["images"] < racing.rungs[-1] and spared(trial.config)
            return str(self.CONTINUE) if goes_on else action

    race = Race(
        time_attr="images",
        metric="value",
        mode="min",
        grace_period=racing.rungs[0],
        max_t=racing.rungs[-1],
        reduction_factor=racing.eta,
    )
    return_to = sorted(
        ((rung.at, rung.images, trial) for trial in told for rung in trial.rungs),
        key=lambda found: found[:2],
    )
    stubs = {t.id: SimpleNamespace(trial_id=t.id, config={"id": t.id}) for t in told}
    for stub in stubs.values():
        race.on_trial_add(None, stub)
    for _, images, trial in return_to:
        value = trial.value(racing.objective, images)
        race.on_trial_result(None, stubs[trial.id], {"images": images, "value": value})
    return race


def spared(values: dict[str, Any]) -> bool:
    return str(values["id"]) == FIRST


FIRST = "t000"


def teller(host: Host) -> Any:
    """What Tune tells, told to the host."""
    from ray.tune import Callback

    class Teller(Callback):  # type: ignore[misc]
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "error" in result:
                host.failed(str(trial), result["error"])
            elif "told" in result:
                info = json.loads(result["told"]) | {"stopped": bool(result.get("done"))}
                host.took(str(trial), result["images"], info.pop("scores"), info)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            error = trial.get_error()
            first = str(error).strip().splitlines() if error else []
            reason = first[-1] if first else "no reason was given"
            host.failed(str(trial), f"its process died {RESTARTS + 1} times: {reason}")

    return Teller()
