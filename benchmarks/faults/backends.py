"""Where a run keeps its files and numbers: a folder, a small disk, a bucket, a tracker."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.hosts import (
    S3_PORT,
    Hosts,
    answers,
    make_bucket,
    start_mlflow,
    start_s3,
    wait_for,
)

PROXY_PORT = 5556
DISK = "disk"
DISK_BYTES = 48_000_000
"""Some ten checkpoints of the small network."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of a few megabytes; hosts see it if they start while it is there."""
    disk = folder / DISK
    disk.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(disk)]
    subprocess.run(words, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def open_backend(kind: str, hosts: Hosts, folder: Path) -> Iterator[tuple[str, str]]:
    """(storage, tracker) of one of them, with the servers that it needs, on the head."""
    database = f"sqlite:///{folder}/numbers.db"
    if kind == "bucket":
        servers = [start_s3(hosts, folder), start_proxy(hosts, folder)]
        hosts.ask(0, make_bucket)
        try:
            yield "s3://bucket/runs", database
        finally:
            for server in servers:
                server.kill()
    elif kind == "tracker":
        yield f"{folder}/runs", start_mlflow(hosts, folder)
    else:
        yield f"{folder}/{DISK if kind == 'disk' else 'runs'}", database


def start_proxy(hosts: Hosts, folder: Path) -> "subprocess.Popen[bytes]":
    here = hosts.address(0)
    set_rules(folder)
    words = [here, str(PROXY_PORT), str(S3_PORT), str(folder)]
    module = [sys.executable, "-m", "benchmarks.faulty_proxy"]
    process = hosts.start(0, [*module, *words], folder / "proxy.log")
    wait_for(lambda: answers(hosts, PROXY_PORT), 60, f"a proxy at {here}:{PROXY_PORT}")
    return process


def set_rules(folder: Path, *rules: dict[str, object]) -> None:
    """What the proxy does from now on."""
    new = folder / "rules.new"
    new.write_text(json.dumps(rules))
    new.replace(folder / "rules.json")


def num_spoilt(folder: Path) -> int:
    """Answers that the present rules have spoilt."""
    while not (text := (folder / "spoilt").read_text()):  # it is being written
        time.sleep(0.01)
    return int(text)
