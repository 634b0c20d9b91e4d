"""python -m benchmarks.faults: run what is missing, print the table.

--repeats of each fault of --only in a run of its own, or one run with --soak faults, a mixture;
--elastic: of one to --workers workers. What FOLDER of --storage has is not made again.
"""

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import prepare_data
from benchmarks.faults.backends import PROXY_PORT, open_backend, small_disk
from benchmarks.faults.inject import run_with_faults
from benchmarks.faults.kinds import KINDS, Kind
from benchmarks.faults.observed import BATCH, SAVE_EVERY, ObservedRun
from benchmarks.faults.table import table
from benchmarks.hosts import ACCOUNT, Hosts, environment, losses, weights, why_not
from benchmarks.timing import parse

PER_FAULT = 8 * SAVE_EVERY
"""Images of a run for each of its faults."""
BAD_STORE = 2
"""Times so many for a store that is bad for a while, in which a run goes on."""
FIXED = "worker", "driver", "raylet", "stopped", "notice", "corrupt", "host", "cut", "lost"
ELASTIC = "worker", "driver", "raylet", "host", "notice"


@dataclass(frozen=True)
class Trials:
    """Runs that suffer faults, each beside the run that does not."""

    args: argparse.Namespace
    hosts: Hosts
    folder: Path

    def run(self, name: str, images: int, storage: str, tracker: str) -> ObservedRun:
        options = f"--cluster.timeout-s 20 --cluster.workers {self.args.workers}"
        if self.args.elastic:
            options += " --cluster.min-workers 1 --cluster.resize-s 5 --model.dropout 0"
        name = f"{name}-{self.args.workers}-{images}"
        return ObservedRun(self.hosts, name, self.folder, storage, images, tracker, options)

    def undisturbed(self, images: int) -> ObservedRun:
        """The run that nothing happens to."""
        kind = "elastic" if self.args.elastic else "fixed"
        with open_backend("folder", self.hosts, self.folder) as (storage, tracker):
            run = self.run(f"undisturbed-{kind}", images, storage, tracker)
        if not Path(run.url, f"checkpoints/{images:012d}/state.json").exists():
            run.start()
            if run.finish(1800):
                raise RuntimeError(f"the undisturbed run failed: {run.tail()}")
        return run

    def trial(self, name: str, faults: list[tuple[str, Kind]]) -> dict[str, Any]:
        """What came of one run."""
        kind = faults[0][1].backend
        images = PER_FAULT * (len(faults) + 1) * (BAD_STORE if kind != "folder" else 1)
        alone = self.undisturbed(images)
        with open_backend(kind, self.hosts, self.folder) as (storage, tracker):
            run = self.run(name, images, storage, tracker)
            try:
                records = run_with_faults(run, faults, self.args.seed)
                if run.said("the same command sends them"):  # MLflow was away at the end
                    run.start()
                    run.finish(300)
            finally:
                run.kill()
            a, b = (weights(self.hosts, r.url, images) for r in (alone, run))
            before, after = (losses(self.hosts, r.tracker, r.url) for r in (alone, run))
        pairs = zip(before, after, strict=False)
        return {
            "faults": records,
            "workers": self.args.workers,
            "images": images,
            "identical": a == b,
            "numbers": [step for step, _ in after] == list(range(BATCH, images + 1, BATCH)),
            "largest": max(abs(y - x) / abs(x) for (_, x), (_, y) in pairs),
        }


def wanted(args: argparse.Namespace) -> dict[str, list[tuple[str, Kind]]]:
    """Name of each run and the faults that it suffers."""
    if not args.soak:
        return {name: [(name, KINDS[name])] * args.repeats for name in args.only}
    names = list(ELASTIC if args.elastic else FIXED)
    chance = random.Random(args.seed)
    mixture = [chance.choice(names) for _ in range(args.soak)]
    name = "soak-elastic" if args.elastic else "soak-fixed"
    return {name: [(kind, KINDS[kind]) for kind in mixture]}


def main() -> None:
    numbers = {"repeats": 4, "soak": 0, "workers": 2, "seed": 0}
    args = parse(__doc__, storage=str, only=KINDS, elastic=False, **numbers)
    if problem := why_not():
        sys.exit(f"error: no hosts here: {problem}")
    folder = Path(args.storage).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    missing = {name: faults for name, faults in wanted(args).items() if name not in found}
    if missing:
        if not (folder / "shards").exists():
            prepare_data(f"digits-lt --out {folder}/shards")
        number = args.workers + 1 + (not args.elastic)  # a spare one where none may be missing
        proxy = {"AWS_ENDPOINT_URL": f"http://{Hosts.address(0)}:{PROXY_PORT}"}
        quick = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
        about = environment(folder) | ACCOUNT | proxy | quick
        with small_disk(folder), Hosts(number, about) as hosts:
            hosts.start_ray()
            trials = Trials(args, hosts, folder)
            for name, faults in missing.items():
                try:
                    found[name] = trials.trial(name, faults)
                except Exception as error:  # the others are still worth knowing
                    print(f"{name}: {type(error).__name__}: {error}", flush=True)
                    continue
                results.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found, {name: kind.says for name, kind in KINDS.items()}))


if __name__ == "__main__":
    main()
