"""What a checkpoint of the largest preset costs, and how fast a run leaves when it has notice.

    python -m benchmarks.checkpoint [--storage FOLDER] [--repetitions 5] [--raw FILE]

The network of the preset with most parameters (cifar100_lt, edm), with Adam's moments: seconds
for the copy, for which training stands still, and for the file beside training. Then the train
command with that network on one worker and a small batch (procedural images): from SIGTERM to
the end of the process, once for each repetition; the checkpoint that it leaves is read back.
"""

import argparse
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch

from benchmarks.commands import prepare_data, speeds, train_command
from benchmarks.hosts import wait_for
from benchmarks.timing import Bench, Cost, arguments, markdown, table, timed
from cbdm_scale.config.presets import preset
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.checkpoint import (
    Progress,
    TrainState,
    read_checkpoint,
    take_snapshot,
    write_checkpoint,
)
from cbdm_scale.training.ema import EMA

PATIENCE_S = 900.0
LARGEST = "cifar100_lt", "edm"
COPY, WRITE = "training stands still for the copy", "written beside training"
LEAVE, STEP = "from SIGTERM to the end", "a step of that run"


def make_state() -> TrainState:
    config = preset(*LARGEST)
    image = SimpleNamespace(channels=3, image_size=32, num_classes=100)
    net = build(network_spec(config, image))
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    ema = EMA(net, config.train.ema_halflife, config.train.ema_ramp)
    return TrainState(net, ema, optimizer, Progress(num_seen=1, substitutions=[0] * 100))


def save_variants(state: TrainState, folder: Storage) -> dict[str, Callable[[], Cost]]:
    """The two halves of a checkpoint; the one that is written was copied a moment ago."""
    snapshots = []

    def copy() -> Cost:
        return timed(lambda: snapshots.append(take_snapshot(state)))

    def write() -> Cost:
        snapshots[:] = [take_snapshot(state)]
        return timed(lambda: write_checkpoint(folder, snapshots[0], {}))

    return {COPY: copy, WRITE: write}


def leave(args: argparse.Namespace, number: int) -> dict[str, float]:
    """Train a few steps, say SIGTERM, wait for the end: seconds until then, and of a step."""
    options = """
        --dataset shapes --preset ddpm --process edm --backbone ddpmpp --model.dropout 0.13
        --cluster.workers 1 --eval.extractor none --train.batch-size 2 --train.log-every 2
        --train.sample-every 0 --train.save-every 100000 --train.total-images 100000
    """
    shards, name = f"{args.storage}/shards", f"leave-{number}"
    words = train_command(options, shards=shards, storage=args.storage, name=name)
    log = Path(args.storage) / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)

    def trains() -> bool:
        return len(speeds(log.read_text())) >= 4 or process.poll() is not None

    wait_for(trains, PATIENCE_S, f"{log}: it did not train")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(PATIENCE_S)
    seconds = time.monotonic() - began
    if status != 128 + signal.SIGTERM:
        raise RuntimeError(f"it ended with {status}: {log.read_text()[-2000:]}")
    run = Storage(args.storage).child(name)
    [checkpoint] = RunDir(run).checkpoints()
    read_checkpoint(run, checkpoint)
    return {LEAVE: seconds, STEP: 2 / max(median(speeds(log.read_text())), 0.5)}


def main() -> None:
    args = arguments(__doc__, repetitions=5, storage="")
    args.storage = args.storage or tempfile.mkdtemp()
    state, folder = make_state(), Storage(args.storage).child("alone")
    parameters = sum(p.numel() for p in state.net.parameters())
    bench = Bench(args, parameters=f"{parameters:,}")
    samples = bench.compare(save_variants(state, folder))
    size = sum(map(len, read_checkpoint(folder, "checkpoints/000000000001")[1].values()))
    bench.about["checkpoint"] = f"{size / 1e6:,.0f} MB"

    prepare_data(f"""
        synthetic --name shapes --classes 100 --counts 4 --eval-per-class 1 --resolution 32
        --no-classifier --out {args.storage}/shards --force-overwrite
    """)
    leaves = [leave(args, number) for number in range(args.repetitions)]
    found = {name: [one[name] for one in leaves] for name in leaves[0]}
    bench.keep({"seconds": found})
    rows = [(n, f"{median(s):.1f}", f"{max(s):.1f}") for n, s in found.items()]
    bench.finish(table(samples, over=[WRITE]), markdown(("s", "median", "largest"), rows))


if __name__ == "__main__":
    main()
