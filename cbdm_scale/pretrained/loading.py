"""Where a network comes from: a run, a checkpoint, a model in MLflow, the paper's own code.

<run>                             the newest whole checkpoint of a run folder, local or URL
<run>/checkpoints/000000072000    this one
models:/NAME@ALIAS, runs:/ID/..   a model that the train command registered
FILE.pt                           a checkpoint of the paper's own code
<folder>                          what the export command or diffusers wrote
"""

from dataclasses import replace
from typing import Any

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.pretrained.diffusers_folder import is_diffusers
from cbdm_scale.pretrained.network import PretrainedNetwork, read_network
from cbdm_scale.pretrained.third_party import open_diffusers, open_paper_checkpoint
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import MLFLOW
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import clip, shorten
from cbdm_scale.training.averaged_weights import select_weights, weights_file
from cbdm_scale.training.checkpoint import progress_of, read_checkpoint
from cbdm_scale.training.options import check_source

PAPER_CHECKPOINT = ".pt", ".pth", ".ckpt"
EXPORTED = RunDir.MODEL, RunDir.EMA
"""Beside config.json: the export command wrote the folder, or it is a registered model's."""


def load_pretrained(
    run: str, *, weights: str = "ema", resolution: int | None = None, tracking_uri: str = ""
) -> PretrainedNetwork:
    """Find and read it; ValueError says what is not there, and the way out."""
    check_source(run, weights)
    if run.startswith(MLFLOW):
        return _open_mlflow(run, weights, tracking_uri)
    if run.endswith(PAPER_CHECKPOINT):
        return open_paper_checkpoint(run, weights, resolution)
    try:
        folder = Storage(run)
        is_there = folder.exists()
    except (ValueError, OSError) as error:
        raise ValueError(
            f"run ({run}) cannot be opened: {clip(error)}. Give --run a folder that is there."
        ) from error
    above, _, name = folder.url.rpartition("/")
    if above.rpartition("/")[2] == RunDir.CHECKPOINTS:
        return _open_checkpoint(
            Storage(above.rpartition("/")[0]), run, f"{RunDir.CHECKPOINTS}/{name}", weights
        )
    if not is_there:
        raise ValueError(
            f"run ({run}) does not exist. Give --run the folder that the train command printed "
            "after 'run'."
        )
    if is_diffusers(folder):
        return open_diffusers(folder, run, weights, resolution)
    if not folder.exists(RunDir.CONFIG):
        raise ValueError(
            f"run ({run}) is no run: it has no config.json. Give --run the folder that the "
            f"train command printed after 'run'{_runs_in(folder)}."
        )
    for file in EXPORTED:
        if folder.exists(file):
            return _open_exported(folder, run, file, weights)
    return _open_newest(folder, run, weights)


def _runs_in(folder: Storage) -> str:
    """A hint for somebody who named the folder of all runs."""
    names = [name for name in folder.list() if folder.exists(f"{name}/{RunDir.CONFIG}")]
    return f", such as {folder.path(names[0])}" if names else ""


def _open_newest(folder: Storage, run: str, weights: str) -> PretrainedNetwork:
    notes: list[str] = []
    names = RunDir(folder).checkpoints()
    for name in reversed(names):
        try:
            about, files = read_checkpoint(folder, name, weights_file(weights))
        except ValueError as error:
            notes.append(f"skipped: {error}")
            continue
        return _of_run(folder, name, about, files, notes, weights)
    if names:
        raise ValueError(
            f"run ({run}): none of its {len(names)} checkpoints is whole. {clip(notes[0], 500)}"
        )
    raise ValueError(
        f"run ({run}) has no checkpoint yet. Let the train command go on until it has saved "
        "one (--train.save-every), or stop it with Ctrl-C, which saves."
    )


def _open_checkpoint(folder: Storage, run: str, name: str, weights: str) -> PretrainedNetwork:
    if not folder.exists(f"{name}/{RunDir.STATE}"):
        names = [there.rpartition("/")[2] for there in RunDir(folder).checkpoints()]
        raise ValueError(
            f"run ({run}) is no finished checkpoint: it has no state.json. "
            + (f"There are {shorten(names[::-1])}." if names else f"{folder.url} has none.")
        )
    about, files = read_checkpoint(folder, name, weights_file(weights))
    return _of_run(folder, name, about, files, [], weights)


def _of_run(
    folder: Storage,
    name: str,
    about: dict[str, Any],
    files: dict[str, bytes],
    notes: list[str],
    weights: str,
) -> PretrainedNetwork:
    num_seen = progress_of(about, folder.path(name)).num_seen
    found = read_network(
        f"run ({folder.url})",
        folder.read_bytes(RunDir.CONFIG),
        select_weights(folder, num_seen, files[weights_file(weights)], weights),
        url=folder.path(name),
        checkpoint=name.rpartition("/")[2],
    )
    total = found.config.train.total_images
    if num_seen < total:
        notes = [
            *notes,
            f"note: the network has seen {num_seen:,} of the run's {total:,} images",
        ]
    return replace(
        found,
        samples=folder.path(RunDir.SAMPLES),
        folder=folder.url,
        num_seen=num_seen,
        notes=tuple(notes),
    )


def _open_exported(folder: Storage, run: str, file: str, weights: str) -> PretrainedNetwork:
    if weights != "ema":
        raise ValueError(
            f"weights ({weights}) are no choice in {run}, which holds one network. Leave "
            "--weights out."
        )
    return read_network(
        f"run ({run})",
        folder.read_bytes(RunDir.CONFIG),
        folder.read_bytes(file),
        url=folder.url,
        checkpoint=folder.url.rpartition("/")[2],
    )


def _open_mlflow(run: str, weights: str, tracking_uri: str) -> PretrainedNetwork:
    from cbdm_scale.tracking.models import fetch_model
    from cbdm_scale.tracking.runs import default_tracking_uri

    if weights != "ema":
        raise ValueError(
            f"weights ({weights}) are not in a model of MLflow, which holds the averaged ones. "
            "Leave --weights out, or give --run the run's folder."
        )
    uri = tracking_uri or default_tracking_uri(Storage(ClusterConfig().storage))
    files = fetch_model(run, uri)
    name = "".join(c if c.isalnum() else "_" for c in run.partition(":/")[2].strip("/"))
    return read_network(
        f"run ({run})", files[RunDir.CONFIG], files[RunDir.EMA], url=run, checkpoint=name
    )
