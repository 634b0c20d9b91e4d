"""What a checkpoint of the largest preset costs, and how fast a run leaves when it has notice.

    python -m benchmarks.checkpoint [--storage FOLDER] [--repetitions 5] [--raw FILE]

The network of the preset with most parameters (cifar100_lt, edm), with Adam's moments: seconds
for the copy, for which training stands still, and for the file beside training. Then the train
command with that network on one worker and a small batch (procedural images): from SIGTERM to
the end of the process, once for each repetition; the checkpoint that it leaves is read back.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.timing import processor
from cbdm_scale.config.presets import preset
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.state import (
    Progress,
    State,
    list_checkpoints,
    read_checkpoint,
    take_snapshot,
    write_checkpoint,
)

PATIENCE_S = 900.0
LARGEST = "cifar100_lt", "edm"
NETWORK = "--process", "edm", "--backbone", "ddpmpp", "--model.dropout", "0.13"


@dataclass(frozen=True)
class Cost:
    """Seconds of one checkpoint."""

    copy: float
    write: float


@dataclass(frozen=True)
class Leave:
    """Seconds from SIGTERM to the end of the process, and of a step."""

    seconds: float
    step: float


def make_state() -> State:
    config = preset(*LARGEST)
    image = SimpleNamespace(channels=3, image_size=32, num_classes=100)
    net = build(network_spec(config, image))
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    ema = EMA(net, config.train.ema_halflife, config.train.ema_ramp)
    return State(net, ema, optimizer, Progress(images=1, substitutions=[0] * 100))


def cost(state: State, folder: Storage) -> Cost:
    began = time.perf_counter()
    snapshot = take_snapshot(state)
    copied = time.perf_counter()
    write_checkpoint(folder, snapshot, {})
    return Cost(copied - began, time.perf_counter() - copied)


def leave(args: argparse.Namespace, number: int) -> Leave:
    """Train a few steps, say SIGTERM, wait for the end."""
    run = Storage(args.storage).child(f"leave-{number}")
    words = [
        *(sys.executable, "-m", "cbdm_scale.train", "--dataset", "shapes", "--preset", "ddpm"),
        *(*NETWORK, "--data.root", f"{args.storage}/shards", "--cluster.storage", args.storage),
        *("--name", f"leave-{number}", "--cluster.workers", "1", "--eval.extractor", "none"),
        *("--train.batch-size", "2", "--train.log-every", "2", "--train.sample-every", "0"),
        *("--train.save-every", "100000", "--train.total-images", "100000"),
    ]
    log = Path(args.storage) / f"leave-{number}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + PATIENCE_S
    while log.read_text().count("/100,000 images |") < 4:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not train: {log.read_text()[-2000:]}")
        time.sleep(0.2)
    rates = [float(line.split("|")[1].strip().removesuffix("/s")) for line in lines_of(log)]
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(PATIENCE_S)
    seconds = time.monotonic() - began
    [name] = list_checkpoints(run)
    read_checkpoint(run, name)
    if status:
        raise RuntimeError(f"it ended with {status}: {log.read_text()[-2000:]}")
    return Leave(seconds, 2 / max(statistics.median(rates), 0.5))


def lines_of(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "/100,000 images |" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="", help="a new folder if not given")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--raw", default="")
    args = parser.parse_args()
    args.storage = args.storage or tempfile.mkdtemp()
    print(f"{processor()}; load average before: {os.getloadavg()[0]:.1f}", flush=True)
    state, folder = make_state(), Storage(args.storage).child("alone")
    costs = [cost(state, folder) for _ in range(args.repetitions)]
    size = sum(map(len, read_checkpoint(folder, "checkpoints/000000000001")[1].values()))
    parameters = sum(p.numel() for p in state.net.parameters())
    print(f"{parameters:,} parameters, a checkpoint of {size / 1e6:,.0f} MB")
    copy, write = ([getattr(c, name) for c in costs] for name in ("copy", "write"))
    for name, seconds in ("training stands still, s", copy), ("written beside it, s", write):
        print(f"{name}: median {statistics.median(seconds):.2f}, largest {max(seconds):.2f}")
    part = statistics.median(copy) / statistics.median([c.copy + c.write for c in costs])
    print(f"stands still / copy and write: {part:.2g}", flush=True)

    words = [sys.executable, "-m", "data_prep", "synthetic", "--name", "shapes"]
    words += ["--classes", "100", "--counts", "4", "--resolution", "32", "--no-classifier"]
    words += ["--eval-per-class", "1", "--out", f"{args.storage}/shards", "--force-overwrite"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    leaves = [leave(args, number) for number in range(args.repetitions)]
    gone = [one.seconds for one in leaves]
    print(
        f"from SIGTERM to the end, s: median {statistics.median(gone):.1f}, largest "
        f"{max(gone):.1f} (a step took {statistics.median(o.step for o in leaves):.1f} s)"
    )
    print(f"load average after: {os.getloadavg()[0]:.1f}")
    if args.raw:
        found = {"costs": [asdict(c) for c in costs], "leaves": [asdict(o) for o in leaves]}
        Path(args.raw).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
