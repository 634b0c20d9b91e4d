"""python -m benchmarks.fuzz: damage, read, count.

    python -m benchmarks.fuzz [--cases 2000] [--seed 0] [--only KIND ...]

Every kind of file that the project takes from strangers: a valid example, damaged by seed (half
of the time with its checksums made right again) or evil by hand, and read by the project's own
reader in a child process with limits (sandbox.py). Counts what came of it. "raw error" is a
bug: a reader that fails in another way than by saying what is wrong.
"""

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks.fuzz.attacks import attacks
from benchmarks.fuzz.formats import FORMATS, Files, example
from benchmarks.fuzz.mutate import mutate
from benchmarks.fuzz.sandbox import CANARY, OUTCOMES, Case, Result, run
from benchmarks.timing import markdown, parse

GOOD = {"read", "refused"}
BATCH = 500
"""Cases a child."""


def write(files: Files, folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def damaged(name: str, files: Files, seed: int, number: int) -> Files:
    """Case ``number``, a function of the seed; the first is the example as it is."""
    chance = random.Random(f"{seed}/{name}/{number}")
    found = mutate(files, chance) if number else files
    return FORMATS[name].seal(found) if chance.random() < 0.5 else found


def fuzz(name: str, seed: int, count: int, folder: Path) -> Iterator[tuple[int, Result]]:
    """Number of each case (attacks by hand below 0) and its result."""
    files, seal = example(name, folder), FORMATS[name].seal
    cases: list[Case] = []
    for number in range(count):
        make = partial(damaged, name, files, seed, number)
        cases.append((number, lambda where, make=make: write(make(), where)))
    evil = [attack for attack in attacks(name, files) if attack(files) != files]
    for number, attack in enumerate(evil):
        cases.append((-1 - number, lambda where, evil=attack: write(seal(evil(files)), where)))
    for begin in range(0, len(cases), BATCH):
        yield from run(cases[begin : begin + BATCH], FORMATS[name].read, folder)


def table(counts: dict[str, Counter[str]]) -> str:
    rows = {FORMATS[name].says: count for name, count in counts.items()}
    rows["all"] = sum(counts.values(), Counter())
    cells = [
        [says, f"{count.total():,}", *(f"{count[outcome]:,}" for outcome in OUTCOMES)]
        for says, count in rows.items()
    ]
    return markdown(["file", "cases", *OUTCOMES], cells)


def main() -> int:
    args = parse(__doc__, cases=2_000, seed=0, only=FORMATS)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    counts: dict[str, Counter[str]] = {}
    folder = Path(tempfile.mkdtemp())
    (folder / CANARY).mkdir()
    seen: set[str] = set()
    for name in args.only:
        counts[name] = Counter()
        for number, (outcome, words) in fuzz(name, args.seed, args.cases, folder):
            counts[name][outcome] += 1
            if number == 0 and outcome != "read" and name != "network":  # is too small
                print(f"{name}: the example itself is not read: {outcome} {words}")
            kind = f"{name} {outcome} {words.split(': ')[0][:100]}"
            if outcome not in GOOD and kind not in seen:
                seen.add(kind)
                print(f"{name} {number}: {outcome}: {words[:400]}", flush=True)
        print(f"{name}: {dict(counts[name])}", flush=True)
    shutil.rmtree(folder)
    print(table(counts))
    return int(any(set(count) - GOOD for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
