"""A Ray cluster: the one that is there, or one of this machine alone on loopback."""

import os
import socket
import sys
import time
from typing import Any

from cbdm_scale.cluster.options import ClusterConfig, wants_gpus
from cbdm_scale.cluster.ray_internals import (
    LOOPBACK,
    init_on_loopback,
    keep_loopback,
    max_cluster_resources,
    newest_local_address,
)

JOINING_S = 300.0
"""Seconds that ``cluster.min_nodes`` nodes get to join."""

ANSWER_S = 5.0
"""Seconds that a cluster at RAY_ADDRESS gets to answer."""


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
    """Join a cluster (``join``) that the workers fit into.

    ValueError if they could never be placed: at once, instead of waiting for ever.
    """
    join()
    _wait_for_nodes(config.min_nodes)
    check_resources(config, max_resources())
    log_if_busy(config.fewest * config.cpus_per_worker)


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them."""
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
    """What the cluster has, or what its autoscaler could make of it."""
    import ray

    have, could = ray.cluster_resources(), max_cluster_resources()
    return {name: max(have.get(name, 0), could.get(name, 0)) for name in have | could}


def join() -> None:
    """Join the cluster of RAY_ADDRESS or of this machine, or start one on loopback.

    RAY_ADDRESS=local always starts one.
    """
    set_environment()
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if address == "local" and not ray.is_initialized():
        _start_local()
    elif not ray.is_initialized():
        if (address or newest_local_address()).startswith(LOOPBACK):
            keep_loopback()
        try:
            wait_for_port(address)
            ray.init(address=address or "auto", log_to_driver=False)
        except ConnectionError as error:
            if address:
                raise ValueError(
                    f"RAY_ADDRESS ({address}) does not answer: {error}. Start Ray there, or "
                    "unset it to use this machine."
                ) from error
            _start_local()
        except Exception as error:  # Ray's own have no common kind: another version, no token
            raise ValueError(
                f"the Ray cluster at {address or newest_local_address()} cannot be joined: "
                f"{_first_line(error)}. Mend that, or start one of this machine alone with "
                "RAY_ADDRESS=local."
            ) from error


def wait_for_port(address: str, seconds: float = ANSWER_S) -> None:
    """ConnectionError if nobody listens at host:port; Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(str(error)) from error
            time.sleep(0.5)


def _first_line(error: Exception) -> str:
    """What it says first, without a full stop; its kind where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0].rstrip(". ")


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
        init_on_loopback(include_dashboard=True, num_cpus=os.cpu_count(), log_to_driver=False)
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
