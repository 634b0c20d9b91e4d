"""The train command under watch: what it said and when, what its workers have reached.

Nothing of the product is asked to cooperate: its lines are read as a user reads them.
"""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commands import train_command
from benchmarks.hosts import Hosts, on

ROOT = Path(__file__).parents[2]
BATCH = 48
SAVE_EVERY = 480
STEP = re.compile(r"^\s*([\d,]+)/[\d,]+ images \|")
RESUMED = re.compile(r"^resumed from .*checkpoints/(\d+)")
SMALL = f"""
    --dataset digits_lt --model.channels 16 --model.dropout 0.1 --train.batch-size {BATCH}
    --train.warmup-images 480 --sample.num-steps 2 --train.sample-every 0 --train.eval-every 0
    --eval.extractor none --train.log-every {BATCH} --train.save-every {SAVE_EVERY}
    --cluster.max-failures 1000
"""
"""A tiny network, a line for every step, a checkpoint every ten."""


@dataclass(frozen=True)
class Event:
    seconds: float
    """time.monotonic() at which the line arrived."""
    kind: str
    """workers, resumed or step."""
    images: int = 0
    pids: tuple[int, ...] = ()


@dataclass
class ObservedRun:
    """One run, through every start of its command on the head of some hosts."""

    hosts: Hosts
    name: str
    folder: Path
    """Of its shards and logs, and of the files by which stores and servers are told to fail."""
    storage: str
    images: int
    tracker: str = ""
    options: str = ""
    """Further ones of the command."""
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    started: float = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Type the command; in a session of its own, as a terminal gives it one."""
        self.started = time.monotonic()
        options = f"{SMALL} --train.total-images {self.images} --track.uri {self.tracker}"
        where = {"shards": self.folder / "shards", "storage": self.storage}
        self.process = subprocess.Popen(
            [*on(0), *train_command(f"{options} {self.options}", name=self.name, **where)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.hosts.environment,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with self.log.open("a") as log:
            for line in process.stdout:
                log.write(f"{time.time():.2f} {line}")
                log.flush()
                self.understand(line, time.monotonic())

    def understand(self, line: str, now: float) -> None:
        self.lines.append(line)
        if line.startswith("workers (host:pid)"):
            pids = tuple(int(word.rpartition(":")[2]) for word in line.split()[2:])
            self.events.append(Event(now, "workers", pids=pids))
        elif found := RESUMED.match(line):
            self.events.append(Event(now, "resumed", int(found[1])))
        elif found := STEP.match(line):
            self.events.append(Event(now, "step", int(found[1].replace(",", ""))))

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in list(self.events) if event.kind == kind]

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers of the newest group, in the order of their ranks."""
        groups = self.of_kind("workers")
        return groups[-1].pids if groups else ()

    @property
    def reached(self) -> int:
        """Most images that any group has reported."""
        return max((event.images for event in self.of_kind("step")), default=0)

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def finished(self) -> bool:
        """Whether the run, and not only the command, has come to its end."""
        return bool(self.ended and self.said("(finished at "))

    @property
    def url(self) -> str:
        return f"{self.storage}/{self.name}"

    def newest_checkpoint(self) -> Path:
        """Of a run in a folder: the newest that is whole."""
        return max(Path(self.url, "checkpoints").glob("0*/state.json")).parent

    def said(self, words: str) -> list[str]:
        return [line for line in list(self.lines) if words in line]

    def since(self, kind: str, seconds: float) -> list[int]:
        """Images of every event of a kind after a moment."""
        return [event.images for event in self.of_kind(kind) if event.seconds > seconds]

    @property
    def newest_reached(self) -> int:
        """Most images that the workers which run now have reported."""
        groups = self.of_kind("workers")
        return max(self.since("step", groups[-1].seconds), default=0) if groups else 0

    def wait_for(self, what: Callable[[], bool], seconds: float, words: str) -> None:
        """Until it is so; RuntimeError if it is not in time, or if the command ends before."""
        deadline = time.monotonic() + seconds
        while not what():
            if self.ended and not what():
                raise RuntimeError(f"{self.name} ended before {words}: {self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: not {words} within {seconds:.0f} s")
            time.sleep(0.02)

    def finish(self, seconds: float) -> int:
        """The exit status of the command, which is given so long."""
        assert self.process and self.reader
        status = self.process.wait(seconds)
        self.reader.join(5)
        return status

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-12:])

    def kill(self) -> None:
        """-9, to the command alone."""
        if self.process and not self.ended:
            self.process.kill()
            self.process.wait()
