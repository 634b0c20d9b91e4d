"""Population based training (Jaderberg et al. 2017) on Ray Tune.

Tune moves a checkpoint from the better trial to the worse one. Ours stay where they are: Tune
moves a small file that points to them, without which it would silently exploit nothing. A trial
that takes over another's weights goes on as a run of its own, from a copy of its checkpoint.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import shorten
from cbdm_scale.training.checkpoint import read_checkpoint
from tune.sampler import round_to
from tune.space import Range, Space
from tune.trainable import TrialTemplate

POINTER = "pointer.json"


@dataclass(frozen=True)
class Pointer:
    """Where the weights of a trial are."""

    trial: str
    run: str
    """Name of the run; "" before there is one."""

    images: int


def last_pointer() -> Pointer | None:
    """What Tune hands this process: its own pointer, or after an exploit another trial's."""
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return Pointer(**json.loads(Path(folder, POINTER).read_text("utf-8")))


def report_with_pointer(found: dict[str, Any], pointer: Pointer) -> None:
    """Report an evaluation to Tune together with the pointer."""
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, POINTER).write_text(json.dumps(pointer.__dict__), "utf-8")
        tune.report(found, checkpoint=tune.Checkpoint.from_directory(folder))


def fork_run(
    template: TrialTemplate, trial_id: str, params: dict[str, float], pointer: Pointer
) -> str:
    """Name of the run that goes on from a pointer with these values; a copy where need be.

    A trial's own run goes on as it is. Other values or weights make a run of their own, because
    the options of a run do not change.
    """
    home = Storage(template.base.cluster.storage)
    before = home.child(pointer.run)
    if pointer.trial == trial_id and _values(before, params) == params:
        return pointer.run
    text = json.dumps([pointer.__dict__, params], sort_keys=True)
    name = f"{template.run_name(trial_id)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    run, checkpoint = home.child(name), RunDir.checkpoint(pointer.images)
    if not run.exists(f"{checkpoint}/{RunDir.STATE}"):
        about, files = read_checkpoint(before, checkpoint)
        for file, data in files.items():
            run.write_bytes(f"{checkpoint}/{file}", data)
        run.write_json(f"{checkpoint}/{RunDir.STATE}", about)
    return name


def _values(run: Storage, params: dict[str, float]) -> dict[str, float]:
    """What a run has for these options."""
    from cbdm_scale.config.schema import from_dict

    found = from_dict(run.read_json(RunDir.CONFIG)).flat()
    return {option: found[option] for option in params}


def make_pbt(space: Space, rungs: tuple[int, ...]) -> Any:
    """Ray's scheduler: at every rung the worst quarter take over from the best."""
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    def within(config: dict[str, Any]) -> dict[str, Any]:
        """Changed values as they can be: inside the space, with few digits."""
        changed = {o: round_to(d.nearest(config[o])) for o, d in space.items()}
        return {**config, **changed}

    mutations: dict[str, Any] = {}
    for option, dimension in space.items():
        if isinstance(dimension, Range):
            draw = tune.loguniform if dimension.log else tune.uniform
            mutations[option] = draw(dimension.low, dimension.high)
        else:
            mutations[option] = list(dimension.values)

    class Population(PopulationBasedTraining):  # type: ignore[misc]
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result["images"] >= rungs[-1] or "error" in result:
                return str(self.STOP)  # there is nothing left to take weights over for
            return str(super().on_trial_result(controller, trial, result))

    return Population(
        time_attr="images",
        metric="value",
        mode="min",
        perturbation_interval=rungs[0],
        hyperparam_mutations=mutations,
        custom_explore_fn=within,
        log_config=False,
    )


def param_space(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The values of each trial as the space that Tune walks through, one after the other."""
    from ray import tune

    table = {one["id"]: one for one in values}

    def of(key: str) -> Any:
        return tune.sample_from(lambda config: table[config["id"]][key])

    others = {key: of(key) for key in values[0] if key != "id"}
    return {"id": tune.grid_search(list(table)), **others}


def check_searchable(space: Space) -> None:
    """ValueError if a space has a change of a schedule, OPTION@SHARE."""
    if changes := [option for option in space if "@" in option]:
        raise ValueError(
            f"space ({shorten(changes)}): a population changes its options on the way, so "
            "that it has no schedule to search. Use --scheduler asha."
        )


def check_population_fits(population: int, at_once: int) -> None:
    """ValueError if a population cannot be trained at the same time."""
    if population > at_once:
        raise ValueError(
            f"scheduler pbt trains its {population} trials (without the controls) at the same "
            f"time, and there is room for {at_once}. Try fewer --trials, --cluster.workers 1, "
            "or a smaller --cluster.cpus-per-worker."
        )
