"""A child process that reads files from strangers, with limits on memory, time and reach.

What a reader does is told by Python's audit events: opening, moving or removing a file outside
the case's folder, starting a process, connecting, naming a class of a pickle.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parents[2])
OURS = tuple(f"{ROOT}/{name}/" for name in ("cbdm_scale", "data_prep", "tune"))
MEMORY = 3 << 30
"""Bytes that a child may take beyond what it has when it is born."""
PEAK, TIMES = 1 << 30, 8
"""Growth that is called a blow-up, though it was granted: bytes, or times what was sent."""
SECONDS, WAITS = 20, 120
"""Of computing, and of all; a busy machine makes others wait."""
OUTCOMES = "read", "refused", "raw error", "memory", "time", "crash", "reached out", "ran code"
RUNS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
CONNECTS = {"socket.connect", "socket.bind", "socket.sendto"}
CHANGES = {"os.truncate", "os.mkdir", "os.symlink", "os.link"}
MOVES = CHANGES | {"os.remove", "os.rename", "os.rmdir"}
PLAIN = {("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")}
"""Names in pickles that we wrote ourselves a moment ago, for a library that wants them."""
CANARY = "canary-of-the-fuzz-run"
"""Names the folder that nobody may touch, and stands in all code that is smuggled in."""

Result = tuple[str, str]
"""Outcome, and words on it."""
Case = tuple[int, Callable[[Path], None]]
"""Its number, and what puts its files into a folder."""


class Watch:
    """The audit hook of a child; hooks cannot be taken off, so it is told when to look."""

    def __init__(self) -> None:
        self.home, self.found = "", ""
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.home or self.found:
            return
        is_evil = event == "pickle.find_class" and arguments[:2] not in PLAIN
        if event in RUNS or event in CONNECTS or is_evil:
            self.found = f"ran code: {event} {str(arguments)[:200]}"
        elif event == "compile" and CANARY in str(arguments[0]):
            self.found = "ran code: compile"
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = os.fsdecode(arguments[0]), arguments[1] or "", arguments[2] or 0
            writes = set(str(mode)) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)
            if (writes and self.is_outside(path)) or CANARY in path:
                self.found = f"reached out: open {path} {mode}"
        elif event in MOVES:
            paths = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes)]
            folders = [a for a in arguments if isinstance(a, int) and a > 2]
            if folders and event != "os.mkdir":  # paths are below an open folder
                paths = [f"/proc/self/fd/{folders[-1]}/{path}" for path in paths]
            if event == "os.symlink":
                paths = paths[1:]
            if any(self.is_outside(path) for path in paths):
                self.found = f"reached out: {event} {paths}"

    def is_outside(self, path: str) -> bool:
        where = os.path.realpath(path)
        return not where.startswith((self.home, "/dev/null", "/dev/shm"))


def observe(read: Callable[[Path], object], folder: Path, watch: Watch) -> Result:
    """What a reader makes of a folder, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch.home, watch.found = os.path.realpath(folder), ""
    outcome, words = "read", ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITS)
    try:
        read(folder)
    except MemoryError as error:
        outcome, words = "memory", repr(error)
    except TimeoutError:
        outcome = "time"
    except Exception as error:
        outcome, words = classify(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        watch.home = ""
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    sent = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if grown > max(PEAK, TIMES * sent):
        outcome, words = "memory", f"{grown >> 20} MB"
    if watch.found:
        outcome, _, words = watch.found.partition(": ")
    return outcome, words


def classify(error: Exception) -> Result:
    """Refused, where our code raised it or the system named the file; else a raw error."""
    frames = traceback.extract_tb(error.__traceback__)
    last, text = frames[-1], f"{type(error).__name__}: {error}"
    if "memory" in str(error) and "alloc" in str(error):
        return "memory", text
    in_ours = last.filename.startswith(OURS)
    said_so = (last.line or "").startswith(("raise", ")", 'f"', '"'))
    tripped = isinstance(error, KeyError | IndexError | TypeError)
    if in_ours and not tripped and (said_so or isinstance(error, ValueError)):
        return "refused", text
    if isinstance(error, OSError) and error.filename:
        return "refused", text
    ours = [f for f in frames if f.filename.startswith(OURS)]
    where = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else ""
    return "raw error", f"{where} {text}"


def too_late(number: int, frame: object) -> None:
    raise TimeoutError


def child(cases: Sequence[Case], read: Callable[[Path], object], out: Any, home: Path) -> None:
    """Make and read cases; the number of each goes out before, its result after."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    watch = Watch()
    signal.signal(signal.SIGALRM, too_late)
    signal.signal(signal.SIGPROF, too_late)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, make in cases:
        out.send((number, None))
        with tempfile.TemporaryDirectory(dir=home) as name:
            os.environ["TMPDIR"] = os.environ["CBDM_SCALE_CACHE"] = tempfile.tempdir = name
            make(Path(name))
            found = observe(read, Path(name), watch)
            tempfile.tempdir = None
        out.send((number, found))


def run(
    cases: Sequence[Case], read: Callable[[Path], object], folder: Path
) -> Iterator[tuple[int, Result]]:
    """Number of each case and its result; a case that ends its process is a crash."""
    fork, left = multiprocessing.get_context("fork"), list(cases)
    while left:
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=child, args=(left, read, theirs, folder))
        process.start()
        theirs.close()
        begun, done = None, set()
        with suppress(EOFError):
            while True:
                begun, found = ours.recv()
                if found:
                    done.add(begun)
                    yield begun, found
        process.join()
        if begun is not None and begun not in done:
            done.add(begun)
            yield begun, ("crash", f"the process ended with {process.exitcode}")
        elif not done:
            raise RuntimeError(f"the child could not begin (status {process.exitcode})")
        left = [case for case in left if case[0] not in done]
