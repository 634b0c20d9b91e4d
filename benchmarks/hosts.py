"""Hosts with addresses of their own on one machine: network namespaces joined by a bridge.

    with Hosts(3, environment) as hosts:
        hosts.start_ray()
        driver = hosts.start(0, [sys.executable, "-m", "cbdm_scale.train", ...], log)
        hosts.kill(2)

Host 0 is the head: it has no CPUs for workers, and an address only from this network. All hosts
share the file system. Needs root and iproute2 (``why_not`` says what is missing). Two of these
networks cannot be there at once; one that a killed process left behind is cleared away first.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import in_new_process
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import make_client

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
S3_PORT, MLFLOW_PORT = 5555, 5000
NAME = "cbdm"
NETWORK = "10.77.0"
PORT = 6379
CPUS = 1
MEMORY = 80_000_000
"""Bytes of each host's object store: nothing large goes through it."""
QUICK = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A host that is gone is missed after some five seconds (Ray's own: half a minute)."""


def why_not() -> str:
    """What keeps this machine from having such hosts; "" if nothing does."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if shutil.which("ip") is None:
        return "ip is missing (package iproute2)"
    tried = subprocess.run(
        ["ip", "netns", "add", f"{NAME}-try"], capture_output=True, text=True
    )
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", f"{NAME}-try"], check=True)
    return ""


class Hosts:
    def __init__(self, number: int, environment: Mapping[str, str] | None = None):
        """number: hosts, the head among them. environment: of every process on every host."""
        self.number = number
        self.folder = Path(tempfile.gettempdir())  # Ray's sessions; a socket's path is short
        self.environment = {
            **os.environ,
            "RAY_ADDRESS": f"{self.address(0)}:{PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
            **QUICK,
            **(environment or {}),
        }

    def __enter__(self) -> "Hosts":
        clear()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        _ip(f"netns add {NAME}-net")
        _ip(f"-n {NAME}-net link add bridge type bridge")
        _ip(f"-n {NAME}-net link set bridge up")
        for host in range(self.number):
            name = namespace(host)
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
            _ip(f"-n {name} link add eth0 type veth peer name port{host} netns {NAME}-net")
            _ip(f"-n {name} addr add {self.address(host)}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")
            _ip(f"-n {NAME}-net link set port{host} master bridge up")
        return self

    def __exit__(self, *what: object) -> None:
        clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def address(host: int) -> str:
        return f"{NETWORK}.{10 + host}"

    def start(
        self,
        host: int,
        words: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A command on a host, its output appended to a file."""
        whole = {**self.environment, **(environment or {})}
        with log.open("ab") as out:
            command = [*on(host), *words]
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=whole)

    def run(self, host: int, words: Sequence[str], seconds: float = 300) -> str:
        """What a command on a host prints; RuntimeError, with all of it, if it fails."""
        command, how = [*on(host), *words], {"capture_output": True, "text": True}
        done = subprocess.run(command, env=self.environment, timeout=seconds, **how)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def ask(self, host: int, work: Callable[..., Any], *given: Any) -> Any:
        """What a function returns there, in a process of its own."""
        return in_new_process(work, *given, env=self.environment, prefix=on(host))

    def start_ray(
        self, hosts: Sequence[int] | None = None, hidden: Mapping[int, Path] | None = None
    ) -> None:
        """Ray on some hosts, or on all of them, the head first.

        hidden: host -> folder that its processes find empty, as where a disk is not mounted.
        """
        ray, head = str(Path(sys.executable).with_name("ray")), f"{self.address(0)}:{PORT}"
        for host in range(self.number) if hosts is None else hosts:
            words = [ray, "start", f"--node-ip-address={self.address(host)}"]
            words += [f"--temp-dir={self.folder}/ray{host}", "--disable-usage-stats"]
            words += [f"--object-store-memory={MEMORY}"]
            if host:
                words += [f"--address={head}", f"--num-cpus={CPUS}"]
            else:
                words += ["--head", f"--port={PORT}", "--num-cpus=0"]
                words += ["--include-dashboard=true"]
            if hide := (hidden or {}).get(host):
                mount = 'mount -t tmpfs none "$0" && exec "$@"'
                words = ["sh", "-c", mount, str(hide), *words]
            self.run(host, words)

    def kill(self, host: int) -> list[int]:
        """SIGKILL for every process of a host, as if its plug were pulled; their numbers."""
        found = processes(host)
        kill_all(found)
        return found

    def cut_off(self, host: int) -> None:
        """Pull a host's cable: what it sends goes nowhere, and nobody is told."""
        _ip(f"-n {NAME}-net link set port{host} down")

    def join_again(self, host: int) -> None:
        _ip(f"-n {NAME}-net link set port{host} up")


def namespace(host: int) -> str:
    return f"{NAME}-{host}"


def on(host: int) -> list[str]:
    """The words before a command that is to run on a host."""
    return ["ip", "netns", "exec", namespace(host)]


def processes(host: int) -> list[int]:
    """Of one host."""
    return _processes(namespace(host))


def environment(folder: Path) -> dict[str, str]:
    """For every process on every host: this checkout, a cache, a Ray that wants a token."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "c0ffee" * 11,
        "RAY_worker_niceness": "0",
        "CBDM_SCALE_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def wait_for(what: Callable[[], bool], seconds: float, why: str) -> None:
    """RuntimeError with ``why`` if it does not happen in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {why}")
        time.sleep(0.1)


def clear() -> None:
    """End every process of every host, and take the network down."""
    lines = subprocess.check_output(["ip", "netns", "list"], text=True).splitlines()
    for name in [line.split()[0] for line in lines if line.startswith(f"{NAME}-")]:
        for _ in range(3):  # the first may start others before they die
            kill_all(_processes(name))
            time.sleep(0.2)
        _ip(f"netns del {name}")


def _processes(name: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL, for those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {words}: {done.stderr.strip()}")


# ----------------------------------------------------------------------------
# What is asked there, where the network is not ours: servers, and what a run has left.


def weights(hosts: Hosts, run: str, images: int) -> dict[str, str]:
    """sha256 of the final weights, average and optimiser of a run's folder or URL."""
    found: dict[str, str] = hosts.ask(0, read_weights, f"{run}/checkpoints/{images:012d}")
    return found


def read_weights(checkpoint: str) -> dict[str, str]:
    folder, files = Storage(checkpoint), ("model", "ema", "optimizer")
    contents = {file: folder.read_bytes(f"{file}.safetensors") for file in files}
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}


def losses(hosts: Hosts, uri: str, run: str) -> list[tuple[int, float]]:
    """(images, loss) of every step, as MLflow has them."""
    return [(step, value) for step, value in hosts.ask(0, read_losses, uri, run)]


def read_losses(uri: str, run: str) -> list[tuple[int, float]]:
    run_id = Storage(run).read_text(RunDir.MLFLOW_RUN_ID).strip()
    history = make_client(uri).get_metric_history(run_id, "loss/total")
    return [(point.step, point.value) for point in history]


def make_bucket(folder: str = "") -> None:
    """The bucket, with the files of a folder in it as shards."""
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket")
    for path in Path(folder).rglob("*") if folder else ():
        if path.is_file():
            s3.upload_file(str(path), "bucket", f"shards/{path.relative_to(folder)}")


def start_s3(hosts: Hosts, folder: Path) -> "subprocess.Popen[bytes]":
    """An S3 endpoint on the head, from when it answers."""
    words = ["-m", "moto.server", "-H", hosts.address(0), "-p", str(S3_PORT)]
    process = hosts.start(0, [sys.executable, *words], folder / "s3.log")
    wait_for(lambda: answers(hosts, S3_PORT), 90, f"{folder}/s3.log: nothing answers")
    return process


def start_mlflow(hosts: Hosts, folder: Path) -> str:
    """MLflow's server on the head, from when it answers; its address."""
    here = hosts.address(0)
    words = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", here]
    words += ["--port", str(MLFLOW_PORT), "--artifacts-destination", f"{folder}/artifacts"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    hosts.start(0, words, folder / "mlflow.log", quiet)
    wait_for(lambda: answers(hosts, MLFLOW_PORT), 90, f"{folder}/mlflow.log: nothing answers")
    return f"http://{here}:{MLFLOW_PORT}"


def answers(hosts: Hosts, port: int) -> bool:
    """Whether something on the head takes a connection."""
    ask = f"import socket; socket.create_connection(({hosts.address(0)!r}, {port}), 1)"
    try:
        hosts.run(0, [sys.executable, "-c", ask])
    except RuntimeError:
        return False
    return True
