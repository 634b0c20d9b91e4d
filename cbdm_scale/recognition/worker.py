"""One rank of a recognition run: a ResNet-32 per seed, trained, tested and stored.

    <storage>/<name>/config.json                 what was learnt from what
    <storage>/<name>/seed-<s>.safetensors, .json    a finished seed, which is not trained again
    <storage>/<name>/classifier.safetensors      the first seed's network
    <storage>/<name>/result.json                 all scores, mean and spread

A seed that was interrupted begins again: nothing is stored of it.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cbdm_scale.cluster.options import Log, ReportCheckpoint, to_stdout
from cbdm_scale.cluster.progress import SILENCE_S, ProgressBar, ProgressLine, clock
from cbdm_scale.cluster.stop import StopFile
from cbdm_scale.data.groups import Group
from cbdm_scale.data.loader import load_batches
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.shards import BadSample
from cbdm_scale.devices import needs_memory
from cbdm_scale.metrics.classifier import save_classifier
from cbdm_scale.metrics.sources import Images
from cbdm_scale.models.resnet import new_resnet
from cbdm_scale.recognition.confusion import group_confusion, scores_by_group, scores_over_seeds
from cbdm_scale.recognition.fit import class_weights, count_confusion, fit
from cbdm_scale.recognition.mixed_images import Augmented, MixedImages
from cbdm_scale.recognition.options import FitConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import structure
from cbdm_scale.tracking.tracker import MlflowTracker, Tracker
from cbdm_scale.training.distributed import World, gather_errors
from cbdm_scale.training.gradients import RunError

_FLUSH_S, _STOPPED_S = 20.0, 3.0  # for MLflow at the end; a run that is stopped goes on later


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learnt from what, and tested on what; pickles small."""

    folder: str
    train: MixedImages
    test: Images
    channels: int
    image_size: int
    class_names: tuple[str, ...]
    groups: tuple[Group, ...]
    fit: FitConfig
    data: DataConfig
    seeds: tuple[int, ...]

    @property
    def num_images(self) -> int:
        """Images shown for one seed."""
        return self.fit.num_images(self.train.count)


def train_and_test(
    world: World,
    report_checkpoint: ReportCheckpoint,
    log: Log = to_stdout,
    *,
    task: Task,
    tracking_uri: str,
    run_id: str,
) -> dict[str, Any]:
    """Train and test every seed that is not there yet; plain data that says how it went.

    What the user can mend comes back as {"error": text} on every rank, and is not retried.
    """
    run = Storage(task.folder)
    first = world.rank == 0
    tracker = Tracker()
    if first and run_id:
        tracker = MlflowTracker(run, tracking_uri, run_id, log)
    stop = StopFile(run) if first else None
    try:
        with needs_memory("the classifier", "Try a GPU that nothing else uses"):
            outcome = _all_seeds(
                task,
                world,
                tracker,
                stop=stop.is_set if stop else lambda: False,
                log=log if first else lambda text: None,
            )
    except (RunError, ValueError, BadSample) as error:
        outcome = {"error": gather_errors(world, str(error))}
    finally:
        if stop:
            stop.close()
    stopped = outcome.get("how") == "stopped"
    outcome["unsent"] = tracker.close(_STOPPED_S if stopped else _FLUSH_S)
    outcome["why"] = tracker.why
    return outcome


def _all_seeds(
    task: Task, world: World, tracker: Tracker, stop: Callable[[], bool], log: Log
) -> dict[str, Any]:
    """The seeds one after the other; rank 0 writes the files."""
    run = Storage(task.folder)
    tables = []
    for seed in task.seeds:
        known, name = None, f"seed-{seed}.json"
        if world.rank == 0 and run.exists(name):
            known = _known(run, name, log)
            log(f"seed {seed}: there already" if known else f"seed {seed}: trained again")
        known = world.gather(known)[0]
        table = (
            _one_seed(task, seed, world, tracker, stop, log)
            if known is None
            else torch.tensor(known)
        )
        if table is None:
            return {"how": "stopped"}
        tables.append(table)
    result: dict[str, Any] = {}
    if world.rank == 0:
        result = _write_result(task, tables)
        numbers = {
            f"recognition/{score}_{name}": spread["mean"]
            for name, scores in result["scores"].items()
            for score, spread in scores.items()
        }
        tracker.scalars(task.num_images * len(tables), numbers)
    world.gather(0)  # nobody leaves before it is written
    return {"how": "finished"} | result


def _known(run: Storage, name: str, log: Log) -> list[list[int]] | None:
    """The confusion matrix (K, K) that a seed left; None, with a line, where it is damaged."""
    try:
        about = run.read_json(name)
        found: list[list[int]] = structure(list[list[int]], about.get("confusion"), "confusion")
        if len({len(found), *map(len, found)}) > 1:
            raise ValueError("confusion is no square")
    except ValueError as error:
        log(f"{run.path(name)} is damaged: {error}")
        return None
    return found


def _one_seed(
    task: Task,
    seed: int,
    world: World,
    tracker: Tracker,
    stop: Callable[[], bool],
    log: Log,
) -> Tensor | None:
    """Confusion (K, K) of a network trained under this seed, stored; None if stopped."""
    began, total = time.perf_counter(), task.num_images
    net = new_resnet(
        image_channels=task.channels,
        image_size=task.image_size,
        num_classes=len(task.groups),
        seed=seed,
    ).to(world.device)
    plan = SamplePlan([task.train.count], seed)
    batches = load_batches(
        Augmented(task.train, plan, seed, task.data.flip),
        task.data,
        start=0,
        batch_size=task.fit.batch_size,
        rank=world.rank,
        world_size=world.size,
    )

    shown = ProgressBar(total, f"images of seed {seed}", log, every_s=SILENCE_S)

    def report(num_shown: int, loss: float) -> None:
        shown.done = num_shown
        speed = num_shown / (time.perf_counter() - began)
        tracker.scalars(num_shown, {f"seed{seed}/loss": loss, "images_per_second": speed})
        text = (
            f"seed {seed} | {num_shown:>9,}/{total:,} images | {speed:.0f}/s | "
            f"loss {loss:.4f} | {clock((total - num_shown) / speed)} left"
        )
        shown.log(ProgressLine(text, num_shown, total))

    with nullcontext() if world.rank else shown:
        try:
            weights = _weights(task, world)
            if not fit(net, batches, task.fit, total, world, report, stop, weights):
                return None
        finally:
            batches.close()  # type: ignore[attr-defined]
        table = count_confusion(net, task.test, len(task.groups), world)
    if world.rank == 0:
        run, scores = Storage(task.folder), scores_by_group(table, task.groups)
        run.write_bytes(f"seed-{seed}.safetensors", save_classifier(net, task.class_names))
        about = {
            "seed": seed,
            "images": total,
            "seconds": round(time.perf_counter() - began, 1),
            "confusion": table.tolist(),
        }
        tracker.scalars(total, _metrics(task, table, f"seed{seed}"))
        tracker.flush()
        run.write_json(f"seed-{seed}.json", about)  # last: it says that the seed is done
        log(
            f"seed {seed}: precision {scores['all'].precision:.3f}, "
            f"recall {scores['all'].recall:.3f}"
        )
    return table


def _weights(task: Task, world: World) -> Tensor | None:
    """(K,) of the classes' losses; None where all count the same."""
    if not task.fit.class_balance:
        return None
    counts = torch.bincount(torch.from_numpy(task.train.labels), minlength=len(task.groups))
    return class_weights(counts, task.fit.class_balance).to(world.device)


def _metrics(task: Task, table: Tensor, prefix: str) -> dict[str, float]:
    """The scores of one table under names for MLflow."""
    numbers: dict[str, float] = {}
    for name, scores in scores_by_group(table, task.groups).items():
        numbers[f"{prefix}/precision_{name}"] = scores.precision
        numbers[f"{prefix}/recall_{name}"] = scores.recall
    for name, shares in group_confusion(table, task.groups).items():
        numbers |= {f"{prefix}/{name}_taken_for_{other}": v for other, v in shares.items()}
    return numbers


def _write_result(task: Task, tables: Sequence[Tensor]) -> dict[str, Any]:
    """Write classifier.safetensors and result.json, and give the latter."""
    run = Storage(task.folder)
    network = run.read_bytes(f"seed-{task.seeds[0]}.safetensors")
    run.write_bytes("classifier.safetensors", network)
    scores = scores_over_seeds(tables, task.groups)
    result = {
        "seeds": list(task.seeds),
        "images_shown": task.num_images,
        "scores": {
            name: {score: asdict(spread) for score, spread in found.items()}
            for name, found in scores.items()
        },
        "classes_never_predicted": [
            scores_by_group(table, task.groups)["all"].never_predicted for table in tables
        ],
        "taken_for": group_confusion(torch.stack(list(tables)).sum(dim=0), task.groups),
    }
    run.write_json("result.json", result)
    return dict(json.loads(json.dumps(result)))
