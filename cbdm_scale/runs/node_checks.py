"""Whether every node of a cluster sees what a run needs: code, data, storage and tracker.

Asked in seconds before the workers start, where otherwise one of them would fail minutes later,
or, worse, write its part of the run to a disk that nobody else sees.
"""

import os
import platform
import time
import uuid
from functools import partial

import torch

from cbdm_scale import __version__
from cbdm_scale.cluster.node_probes import (
    Nodes,
    Problem,
    ThisProcess,
    look_at_gpus,
    refuse,
)
from cbdm_scale.cluster.options import wants_gpus
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import shorten
from cbdm_scale.tracking.client import check_server, database_file


def versions() -> dict[str, str]:
    """What must be the same on every node, or its numbers would not be."""
    return {
        "cbdm_scale": __version__,
        "torch": torch.__version__,
        "python": platform.python_version().rpartition(".")[0],
    }


def _fingerprint(root: str, dataset: str) -> str:
    try:
        return read_manifest(root, dataset).fingerprint
    except ValueError as error:  # whole here: to make it once more there would be no cure
        raise ValueError(str(error).partition(" Make it")[0]) from None


def meet(folder: Storage, place: str, driver: str, mine: str) -> None:
    """Read what the driver wrote, and write something that it reads."""
    if not folder.exists(f"{place}/{driver}"):
        raise ValueError("what the driver wrote there is not there")
    folder.write_bytes(f"{place}/{mine}", mine.encode())


def _check_versions(nodes: Nodes | ThisProcess) -> list[str]:
    here = versions()
    problems = []
    answers = nodes.ask([versions] * len(nodes.names))
    for name, there in zip(nodes.names, answers, strict=True):
        if isinstance(there, Problem):
            problems.append(f"node {name}: {there.told()}")
            continue
        differing = [
            f"{package} {there.get(package)} there, {version} here"
            for package, version in here.items()
            if there.get(package) != version
        ]
        if differing:
            problems.append(
                f"node {name}: {shorten(differing)}. Install the same constraints.txt on both."
            )
    return problems


def _check_data(nodes: Nodes | ThisProcess, root: str, manifest: Manifest) -> list[str]:
    problems = []
    missing = "Mount it there too, or give --data.root a path or URL that all nodes see"
    question = partial(_fingerprint, root, manifest.name)
    answers = nodes.ask([question] * len(nodes.names))
    for name, there in zip(nodes.names, answers, strict=True):
        if isinstance(there, Problem):
            problems.append(
                f"node {name} does not see data.root ({root}): {there.told(missing=missing)}"
            )
        elif there != manifest.fingerprint:
            problems.append(
                f"node {name} has another {manifest.name} in data.root ({root}): fingerprint "
                f"{there}, here {manifest.fingerprint}. Copy it again, or share one folder."
            )
    return problems


def _check_shared(nodes: Nodes | ThisProcess, option: str, folder: Storage) -> list[str]:
    """Whether the driver and the nodes see each other's files in a folder."""
    place, problems = f".preflight-{uuid.uuid4().hex[:8]}", []
    missing = f"Mount one folder, such as NFS, on all nodes, or give --{option} a URL"
    folder.write_bytes(f"{place}/driver", b"driver")
    try:
        marks = [f"node-{i}" for i in range(len(nodes.names))]
        answers = nodes.ask([partial(meet, folder, place, "driver", mark) for mark in marks])
        for name, mark, answer in zip(nodes.names, marks, answers, strict=True):
            if not isinstance(answer, Problem) and not folder.exists(f"{place}/{mark}"):
                answer = Problem("what it wrote there is not here", "missing")
            if isinstance(answer, Problem):
                problems.append(
                    f"node {name} does not share {option} ({folder.url}): "
                    f"{answer.told(missing=missing)}"
                )
    finally:
        folder.remove(place)
    return problems


def _check_tracker(nodes: Nodes | ThisProcess, uri: str) -> list[str]:
    question = partial(check_server, uri)
    answers = nodes.ask([question] * len(nodes.names))
    user = "Start Ray there with the same MLFLOW_TRACKING_... variables"
    return [
        f"node {name} does not reach MLflow: {there.told(credentials=user)}"
        for name, there in zip(nodes.names, answers, strict=True)
        if isinstance(there, Problem)
    ]


def check_nodes(
    nodes: Nodes | ThisProcess, config: Config, manifest: Manifest, uri: str
) -> list[str]:
    """The nodes' names, with their GPUs where workers get some.

    ValueError names the first nodes that are not ready, what they lack, and the way out.
    """
    named = nodes.names
    problems = _check_versions(nodes)
    if not problems:  # who cannot run the code cannot answer the rest
        if wants_gpus(config.cluster, {"GPU": sum(nodes.num_gpus)}):
            problems, named = look_at_gpus(nodes)
        storage = Storage(config.cluster.storage)
        problems += _check_data(nodes, config.data.root, manifest)
        problems += _check_shared(nodes, "cluster.storage", storage)
        database = database_file(uri)
        if database is None:
            problems += _check_tracker(nodes, uri)
        elif not database.startswith(storage.path("")):
            folder = Storage(os.path.dirname(database))
            problems += _check_shared(nodes, "track.uri", folder)
    refuse(problems)
    return named


def look_at_nodes(config: Config, manifest: Manifest, uri: str) -> str:
    """A line that says which nodes are ready; ValueError if any is not."""
    began = time.monotonic()
    alone, patience_s = not config.cluster.workers, config.cluster.timeout_s
    nodes = ThisProcess() if alone else Nodes(patience_s)
    try:
        named = check_nodes(nodes, config, manifest, uri)
    finally:
        nodes.close()
    return (
        f"nodes {'; '.join(named)} see code, data, storage and tracker "
        f"({time.monotonic() - began:.0f} s)"
    )
