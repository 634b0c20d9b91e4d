"""A Ray cluster of several nodes on this machine, each a process that can be killed.

Every node has a loopback address of its own (127.0.0.2, 127.0.0.3, ...; Linux takes them as they
are), so that nothing is reachable from outside. The head takes no workers.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "127.0.0.2"
HEALTH = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
"""A node that is silent for so long is dead: Ray's own values are some times larger."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HEAD, 0))
        return int(free.getsockname()[1])


@dataclass
class Node:
    """One ``ray start --block`` and what it started."""

    address: str
    process: subprocess.Popen[bytes]

    def raylet(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        [found] = [child for child in children if child.name() == "raylet"]
        return found


@dataclass
class Nodes:
    """The head and the nodes that take workers, one logical CPU each."""

    folder: Path
    head: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    port: int = 0
    made: int = 0

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.port}"

    def environment(self) -> dict[str, str]:
        """For the nodes and for every command on them."""
        mine = {
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        return dict(os.environ) | HEALTH | mine

    def start(self, count: int) -> None:
        self.port = free_port()
        more = [f"--port={self.port}", "--num-cpus=0", "--head", "--dashboard-host=127.0.0.1"]
        self.head = self._start(HEAD, [*more, f"--dashboard-port={free_port()}"])
        self._wait_for_head()
        for _ in range(count):
            self.add()

    def _wait_for_head(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HEAD, self.port)) == 0:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the head did not start: {self.folder}/{HEAD}.log")

    def add(self) -> Node:
        """One more node; its address is never used again."""
        self.made += 1
        address = f"127.0.0.{self.made + 2}"
        node = self._start(address, [f"--address={self.address}", "--num-cpus=1"])
        self.nodes.append(node)
        return node

    def _start(self, address: str, more: list[str]) -> Node:
        words = [RAY, "start", "--block", f"--node-ip-address={address}", *more]
        words += [f"--temp-dir={self.folder / 'ray'}", "--object-store-memory=100000000"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{address}.log").open("wb") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, env=self.environment(), start_new_session=True
            )
        return Node(address, process)

    def node_of(self, pid: int) -> Node:
        """The node that a worker process runs on."""
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        [found] = [node for node in self.nodes if node.process.pid in above]
        return found

    def forget(self, node: Node) -> None:
        """What is left of a node whose raylet is gone."""
        self.nodes.remove(node)
        end(node)

    def stop(self) -> None:
        for node in [*self.nodes, *([self.head] if self.head else [])]:
            end(node)
        self.nodes, self.head = [], None


def end(node: Node, patience_s: float = 15) -> None:
    """End a node: asked first, so that its workers end too, then at once."""
    with_it = []
    if node.process.poll() is None:
        with_it = psutil.Process(node.process.pid).children(recursive=True)
        node.process.send_signal(signal.SIGTERM)
        try:
            node.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.process.wait()
    _, alive = psutil.wait_procs(with_it, 5)
    for process in alive:
        process.kill()


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[Nodes]:
    nodes = Nodes(folder)
    try:
        nodes.start(count)
        yield nodes
    finally:
        nodes.stop()
