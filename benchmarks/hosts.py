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
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", namespace(host), *words],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**self.environment, **(environment or {})},
            )

    def run(self, host: int, words: Sequence[str], seconds: float = 300) -> str:
        """What a command on a host prints; RuntimeError, with all of it, if it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", namespace(host), *words],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=seconds,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

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
        _kill(found)
        return found

    def cut_off(self, host: int) -> None:
        """Pull a host's cable: what it sends goes nowhere, and nobody is told."""
        _ip(f"-n {NAME}-net link set port{host} down")

    def join_again(self, host: int) -> None:
        _ip(f"-n {NAME}-net link set port{host} up")


def namespace(host: int) -> str:
    return f"{NAME}-{host}"


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
            _kill(_processes(name))
            time.sleep(0.2)
        _ip(f"netns del {name}")


def _processes(name: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {words}: {done.stderr.strip()}")
