"""python -m benchmarks.faults: parse, run what is missing, print the table."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.faults.kinds import KINDS, Kind, Scene
from benchmarks.faults.nodes import Nodes, cluster
from benchmarks.faults.suffer import suffer
from benchmarks.faults.table import table
from benchmarks.faults.watched import SAVE_EVERY, Watched, environment

PER_FAULT = 2 * SAVE_EVERY
"""Images of a run for each of its faults."""


def watched(args: argparse.Namespace, nodes: Nodes, name: str, images: int) -> Watched:
    folder = Path(args.storage)
    return Watched(
        name=name,
        storage=str(folder / "runs"),
        shards=str(folder / "shards"),
        workers=args.workers,
        images=images,
        log=folder / f"{name}.log",
        environment=environment(nodes.environment() | {"RAY_ADDRESS": nodes.address}),
        more=(
            *("--cluster.timeout-s", str(args.timeout_s)),
            *("--cluster.min-nodes", str(1 + args.workers)),
        ),
    )


def undisturbed(args: argparse.Namespace, nodes: Nodes, images: int) -> dict[str, str]:
    """Hashes of the final weights of the run that nothing happens to."""
    run = watched(args, nodes, f"undisturbed-{args.workers}-{images}", images)
    if not run.folder.exists(f"checkpoints/{images:012d}/state.json"):
        run.start()
        if run.finish(1800):
            raise RuntimeError(f"the undisturbed run failed: {run.tail()}")
    return run.hashes()


def trial(args: argparse.Namespace, nodes: Nodes, name: str, kind: Kind) -> dict[str, Any]:
    """A run that suffers one kind of fault again and again."""
    images = PER_FAULT * (args.repeats + 1)
    expected = undisturbed(args, nodes, images)
    run = watched(args, nodes, f"{name}-{args.workers}-{images}", images)
    journal = Path(args.storage) / f"{run.name}.jsonl"
    try:
        faults = suffer(Scene(run, nodes), [(name, kind)] * args.repeats, args.seed, journal)
    finally:
        run.kill()
    return {"faults": faults, "identical": run.hashes() == expected, "workers": args.workers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout-s", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = Path(args.storage).absolute()
    args.storage = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    missing = [name for name in args.only if name not in found]
    if missing:
        with cluster(folder / "ray", args.workers + 1) as nodes:
            for name in missing:
                try:
                    found[name] = trial(args, nodes, name, KINDS[name])
                except Exception as error:  # the others are still worth knowing
                    print(f"{name}: {type(error).__name__}: {error}", flush=True)
                    continue
                results.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))


main()
