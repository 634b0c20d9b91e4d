"""A Ray cluster: one that was named or that the user started here, or one of our own.

Which is joined: that of RAY_ADDRESS (``ray job submit`` sets it for its job); else the one that
this user started on this machine with ``ray start``, if it answers; else none, and a new one is
started that listens on loopback and ends with the command. No other is looked for: Ray's "auto"
takes the first Ray process that it finds, whose ever it is and whether or not it answers.
"""

import os
import socket
import sys
import time
from typing import Any

from cbdm_scale.cluster.causes import CURES, cause_of
from cbdm_scale.cluster.local import open_local_device
from cbdm_scale.cluster.options import ClusterConfig, wants_gpus
from cbdm_scale.cluster.ray_internals import (
    LOOPBACK,
    init_on_loopback,
    keep_loopback,
    keep_signals,
    max_cluster_resources,
    ray_start_address,
    token_is_refused,
)
from cbdm_scale.storage.wording import clip

JOINING_S = 300.0
"""Seconds that ``cluster.min_nodes`` nodes get to join."""

ANSWER_S = 5.0
"""Seconds that a cluster at RAY_ADDRESS gets to answer."""

GLANCE_S = 1.0
"""Seconds that one which nobody named gets."""

SETTINGS = 4
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
"""What a client of gRPC says first, with empty settings; the server answers with its own."""


def set_environment() -> None:
    """Ray's switches that must be set before it is imported; the user's own values win."""
    quiet = {
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    token = os.path.expanduser("~/.ray/auth_token")
    if "RAY_AUTH_MODE" not in os.environ and os.path.exists(token):
        os.environ["RAY_AUTH_MODE"] = "token"  # a client never turns it on by itself


def connect(config: ClusterConfig) -> None:
    """Join a cluster (``join``) that the workers fit into; none for ``cluster.workers`` 0.

    ValueError if they could never be placed: at once, instead of waiting for ever.
    """
    if config.workers == 0:
        open_local_device(config)
        return
    join()
    _wait_for_nodes(config.min_nodes)
    check_resources(config, max_resources())
    log_if_busy(config.fewest * config.cpus_per_worker)


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them; none where this process is in none."""
    if not in_cluster():
        return []
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _wait_for_nodes(count: int, seconds: float = JOINING_S) -> None:
    """Wait until so many nodes have joined; ValueError if they do not."""
    deadline, printed = time.monotonic() + seconds, -1
    while (joined := len(alive_nodes())) < count:
        if time.monotonic() > deadline:
            raise ValueError(
                f"cluster.min_nodes ({count}): only {joined} nodes joined within "
                f"{seconds:.0f} s. Look at the other nodes' logs, or go on with "
                f"--cluster.min-nodes {joined}."
            )
        if joined != printed:
            print(f"waiting for nodes: {joined} of {count} are there", flush=True)
            printed = joined
        time.sleep(1.0)


def max_resources() -> dict[str, float]:
    """What the cluster has, or could have; nothing where this process is in none."""
    if not in_cluster():
        return {}
    import ray

    have, could = ray.cluster_resources(), max_cluster_resources()
    return {name: max(have.get(name, 0), could.get(name, 0)) for name in have | could}


def find_cluster() -> str:
    """Address of the cluster to join; "" if one has to be started.

    RAY_ADDRESS=local always is "". ValueError if RAY_ADDRESS=auto and there is none.
    """
    set_environment()  # asking imports parts of ray, which read it then
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return ""
    if named not in ("", "auto"):
        return named
    found = ray_start_address()
    if found and answers(found, GLANCE_S):
        return found
    if named:
        raise ValueError(
            "RAY_ADDRESS (auto): no cluster that you started here with `ray start` answers. "
            "Give it host:port, or unset it to use this machine."
        )
    return ""


def join() -> None:
    """Join the cluster that ``find_cluster`` finds, or start one on loopback."""
    set_environment()
    import ray

    if ray.is_initialized():
        return
    address = find_cluster()
    if not address:
        _start_local()
        return
    if address.startswith(LOOPBACK):
        keep_loopback()
    if not answers(address, ANSWER_S):
        raise ValueError(
            f"RAY_ADDRESS ({address}) does not answer: no Ray is there within {ANSWER_S:g} s. "
            "Start Ray there, or unset it to use this machine."
        )
    if knows_host(address) and token_is_refused(address):
        raise ValueError(f"the Ray cluster at {address} wants {_wanted()}. {_cure('token')}")
    try:
        with keep_signals():
            ray.init(address=address, log_to_driver=False)
    except Exception as error:  # Ray's own have no common kind: another version, say
        cure = _cure(cause_of(f"{type(error).__name__}: {error}"))
        raise ValueError(
            f"the Ray cluster at {address} cannot be joined: {_first_line(error)}. {cure}"
        ) from error


def _wanted() -> str:
    """Ray's token that a cluster wants, beside what this process has of it and from where."""
    if (mode := os.environ.get("RAY_AUTH_MODE", "")) != "token":
        return f"a token, and RAY_AUTH_MODE is {mode or 'not set'}"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "another token than that of RAY_AUTH_TOKEN"
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    is_there = os.path.exists(os.path.expanduser(file))
    return f"another token than that of {file}" if is_there else "a token, and there is none"


def _cure(cause: str) -> str:
    """What mends a cause, where that is known, and the way that is always open."""
    alone = "start one of this machine alone with RAY_ADDRESS=local."
    return f"{CURES[cause]}, or {alone}" if cause in CURES else f"You can {alone}"


def knows_host(address: str) -> bool:
    """Whether it is host:port, and no ray:// of Ray's own client, say."""
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and "/" not in host


def answers(address: str, seconds: float) -> bool:
    """Whether a server of gRPC, as Ray's is, answers at host:port; True for other addresses.

    Ray itself would try for minutes, and for ever where a process that is stopped still has
    its port. With RAY_USE_TLS it is enough that somebody listens.
    """
    if not knows_host(address):
        return True
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), seconds) as there:
                if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                    return True
                there.sendall(HTTP2_HELLO)
                return there.recv(4)[3:] == bytes([SETTINGS])
        except (OSError, OverflowError):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


def _first_line(error: Exception) -> str:
    """What it says first, without a full stop; its kind where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return clip(text.partition("\n")[0].rstrip(". "), 400)


def in_cluster() -> bool:
    """Whether this process belongs to a Ray cluster; under torchrun, say, it does not."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def log_if_busy(num_cpus: float) -> None:
    """Print that so many CPUs are waited for, if fewer are free now."""
    import ray

    free = ray.available_resources().get("CPU", 0)
    if free < num_cpus:
        print(
            f"waiting for CPUs: {num_cpus:g} needed, {free:g} of the cluster's "
            f"{ray.cluster_resources().get('CPU', 0):g} are free now",
            flush=True,
        )


def _start_local() -> None:
    """A cluster of this machine alone, which nothing outside can reach.

    Its processes are told its address: those that look for a cluster on the machine, as Ray
    Train's own helpers do, would find several where others run beside it, and give up.
    """
    import ray

    port = _free_port()
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_GCS_SERVER_PORT")}
    os.environ["RAY_ADDRESS"] = f"{LOOPBACK}:{port}"
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    try:
        with keep_signals():
            init_on_loopback(
                include_dashboard=True, num_cpus=os.cpu_count(), log_to_driver=False
            )
    except Exception as error:
        ray.shutdown()
        logs = f"{os.environ.get('RAY_TMPDIR') or '/tmp'}/ray/session_latest/logs"
        raise ValueError(
            f"Ray did not start on this machine: {_first_line(error)}. Its logs are in {logs}; "
            "look for memory or space that ran out, or join a running cluster with "
            "RAY_ADDRESS=host:port."
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def check_resources(config: ClusterConfig, resources: dict[str, float]) -> None:
    """ValueError if the fewest workers that train could never be placed."""
    workers, option = config.fewest, "min_workers" if config.min_workers else "workers"
    flag = f"--cluster.{option.replace('_', '-')}"
    need, have = workers * config.cpus_per_worker, resources.get("CPU", 0)
    if need > have:
        fitting = int(have / config.cpus_per_worker)
        raise ValueError(
            f"cluster.{option} ({workers}) x cluster.cpus_per_worker "
            f"({config.cpus_per_worker:g}) needs {need:g} CPUs, the cluster has {have:g}. Try "
            f"{flag} {max(fitting, 1)} or --cluster.cpus-per-worker "
            f"{max(have / workers, 0.1):.2g}."
        )
    gpus = int(resources.get("GPU", 0))
    if wants_gpus(config, resources) and gpus < workers:
        fewer = f"{flag} {gpus} or " if gpus else ""
        raise ValueError(
            f"cluster.{option} ({workers}) needs as many GPUs, one for each, the cluster has "
            f"{gpus}. Try {fewer}--cluster.device cpu."
        )
