"""Files from strangers: a few of every kind, and what the sandbox sees of a bad reader."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = (
    *("shards", "checkpoint", "exported", "diffusers", "served", "paper", "classifier"),
    *("samples", "pictures", "tars", "pickled", "preset", "search"),
)
"""All but the weights of an extractor, which take a second each."""
READERS = """
import os, pickle, sys, tempfile, time
from pathlib import Path
from benchmarks.fuzz import sandbox
from benchmarks.fuzz.attacks import CODE
from cbdm_scale.storage.json import parse_json

folder = Path(tempfile.mkdtemp())
(folder / sandbox.CANARY).mkdir()
(folder / sandbox.CANARY / "secret").write_text("")

def look(folder, way):
    return (folder / "sent" / ".." / way).resolve().read_text()

READERS = {
    "good": lambda f: parse_json(b"{}", "it"),
    "says so": lambda f: parse_json((f / "sent").read_bytes(), "it"),
    "names the file": lambda f: (f / "absent").read_bytes(),
    "trips": lambda f: {}["key"],
    "runs a pickle": lambda f: pickle.loads(pickle.dumps(CODE)),
    "looks outside": lambda f: (f.parent / sandbox.CANARY / "secret").read_text(),
    "writes outside": lambda f: (f.parent / "escaped").write_text(""),
    "removes outside": lambda f: (f.parent / sandbox.CANARY / "secret").unlink(),
    "fills memory": lambda f: bytearray(1 << 42),
    "grows": lambda f: len(bytearray(1 << 30) + bytearray(1 << 20)),
    "never ends": lambda f: all(zero == 0 for zero in iter(int, 1)),
    "waits for ever": lambda f: time.sleep(600),
    "dies": lambda f: os._exit(3),
}
make = lambda f: (f / "sent").write_text("no JSON")
for name, read in READERS.items():
    if name in {"never ends", "waits for ever"}:  # others on a busy machine may take longer
        sandbox.SECONDS, sandbox.WAITS = 1, 3
    else:
        sandbox.SECONDS, sandbox.WAITS = 20, 120
    for number, (outcome, words) in sandbox.run([(0, make)], read, folder):
        print(f"{name}: {outcome}", flush=True)
"""


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: it forks, which one that has threads should not. Without
    bytecode, which a module that a reader loads late would write outside of its folder."""
    return subprocess.run(
        [sys.executable, "-B", *words], cwd=ROOT, capture_output=True, text=True, timeout=250
    )


@pytest.mark.parametrize("seed", [0])
def test_no_file_of_a_stranger_runs_reaches_fills_hangs_or_trips(seed: int) -> None:
    done = python(*f"-m benchmarks.fuzz --cases 4 --seed {seed} --only".split(), *KINDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ran code" in done.stdout and f"| all | {4 * len(KINDS):,}" not in done.stdout


def test_the_sandbox_sees_what_a_bad_reader_does() -> None:
    done = python("-c", READERS)
    assert dict(line.split(": ") for line in done.stdout.splitlines()) == {
        "good": "read",
        "says so": "refused",
        "names the file": "refused",
        "trips": "raw error",
        "runs a pickle": "ran code",
        "looks outside": "reached out",
        "writes outside": "reached out",
        "removes outside": "reached out",
        "fills memory": "memory",
        "grows": "memory",
        "never ends": "time",
        "waits for ever": "time",
        "dies": "crash",
    }, done.stderr
