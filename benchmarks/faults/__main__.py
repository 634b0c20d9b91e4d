"""python -m benchmarks.faults: parse, run what is missing, print the table."""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.faults.kinds import Kind, Scene
from benchmarks.faults.machines import MACHINES
from benchmarks.faults.places import PROXY_PORT, Place, place, small_disk
from benchmarks.faults.processes import PROCESSES
from benchmarks.faults.stores import STORES
from benchmarks.faults.suffer import suffer
from benchmarks.faults.table import table
from benchmarks.faults.watched import BATCH, SAVE_EVERY, Watched
from benchmarks.hosts import Hosts, why_not
from benchmarks.on_hosts import ACCOUNT, losses, weights

KINDS = PROCESSES | MACHINES | STORES
PER_FAULT = 8 * SAVE_EVERY
"""Images of a run for each of its faults."""
BAD_STORE = 2
"""Times so many for a store that is bad for a while, in which a run goes on."""
FIXED = "worker", "driver", "raylet", "stopped", "notice", "corrupt", "host", "cut", "lost"
ELASTIC = "worker", "driver", "raylet", "host", "notice"


def watched(
    args: argparse.Namespace, hosts: Hosts, name: str, images: int, where: Place
) -> Watched:
    fewest = ("--cluster.min-workers", "1", "--cluster.resize-s", "5") if args.elastic else ()
    plain = ("--model.dropout", "0") if args.elastic else ()
    return Watched(
        hosts=hosts,
        name=name,
        storage=where.storage,
        shards=f"{args.storage}/shards",
        workers=args.workers,
        images=images,
        log=Path(args.storage) / f"{name}.log",
        more=("--cluster.timeout-s", str(args.timeout_s), *fewest, *plain, *where.options),
    )


def undisturbed(args: argparse.Namespace, hosts: Hosts, images: int) -> Watched:
    """The run that nothing happens to."""
    kind = "elastic" if args.elastic else "fixed"
    with place("folder", hosts, Path(args.storage)) as where:
        run = watched(args, hosts, f"undisturbed-{kind}-{args.workers}-{images}", images, where)
    if not Path(run.folder, f"checkpoints/{images:012d}/state.json").exists():
        run.start()
        if run.finish(1800):
            raise RuntimeError(f"the undisturbed run failed: {run.tail()}")
    return run


def trial(
    args: argparse.Namespace, hosts: Hosts, name: str, faults: list[tuple[str, Kind]]
) -> dict[str, Any]:
    """A run that suffers faults, beside the one that does not."""
    long = BAD_STORE if faults[0][1].place != "folder" else 1
    images = round(PER_FAULT * (len(faults) + 1) * long * args.length)
    alone, folder = undisturbed(args, hosts, images), Path(args.storage)
    with place(faults[0][1].place, hosts, folder) as where:
        run = watched(args, hosts, f"{name}-{args.workers}-{images}", images, where)
        journal = folder / f"{run.name}.jsonl"
        try:
            records = suffer(Scene(run, hosts, folder), faults, args.seed, journal)
            if run.said("the same command sends them"):  # MLflow was away at the end
                run.start()
                run.finish(300)
        finally:
            run.kill()
        found = {"faults": records, "workers": args.workers, "images": images}
        expected = weights(hosts, alone.folder, images)
        found["identical"] = weights(hosts, run.folder, images) == expected
        told = [losses(hosts, tracker(r), r.folder) for r in (alone, run)]
    found["numbers"] = [step for step, _ in told[1]] == list(range(BATCH, images + 1, BATCH))
    pairs = zip(told[0], told[1], strict=False)
    found["largest"] = max(abs(b - a) / abs(a) for (_, a), (_, b) in pairs)
    return found


def tracker(run: Watched) -> str:
    words = list(run.more)
    return words[words.index("--track.uri") + 1]


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--repeats", type=int, default=4, help="of each fault, in one run")
    parser.add_argument("--soak", type=int, default=0, help="faults of a mixture, in one run")
    parser.add_argument("--length", type=float, default=1, help="of a run, times the usual")
    parser.add_argument("--elastic", action="store_true", help="1 to --workers workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout-s", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if problem := why_not():
        sys.exit(f"error: no hosts here: {problem}")
    folder = Path(args.storage).absolute()
    args.storage = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    missing = {name: faults for name, faults in wanted(args).items() if name not in found}
    if missing:
        make_shards(folder)
        number = args.workers + 1 + (not args.elastic)  # a spare one where none may be missing
        with small_disk(folder), Hosts(number, environment(folder)) as hosts:
            hosts.start_ray()
            for name, faults in missing.items():
                try:
                    found[name] = trial(args, hosts, name, faults)
                except Exception as error:  # the others are still worth knowing
                    print(f"{name}: {type(error).__name__}: {error}", flush=True)
                    continue
                results.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found, {name: kind.says for name, kind in KINDS.items()}))


def environment(folder: Path) -> dict[str, str]:
    """Of every process on every host."""
    return {
        **ACCOUNT,
        "AWS_ENDPOINT_URL": f"http://{Hosts.address(0)}:{PROXY_PORT}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "c0ffee" * 11,
        "RAY_worker_niceness": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "CBDM_SCALE_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def make_shards(folder: Path) -> None:
    if not (folder / "shards").exists():
        words = ["-m", "data_prep", "digits-lt", "--out", str(folder / "shards")]
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


main()
