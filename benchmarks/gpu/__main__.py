"""One short run on a GPU: is everything right there, how fast is it, where does the time go?

    python -m benchmarks.gpu [--budget 430] [--only right,train] [--skip compile] [--tiny]

Needs torch, numpy, scipy and safetensors, and for Inception's speed torch_fidelity; neither
ray nor mlflow nor webdataset. Every figure is in $OUT/gpu.json as soon as its part is over.
What fails is named and the rest goes on; after a failure that takes the device along, in a new
process. --tiny: on the CPU, in a minute or two.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import (
    correctness,
    host,
    kernels,
    machine,
    metrics,
    older_torch,
    sampling,
    training,
)
from benchmarks.gpu.context import Context, LostDevice
from benchmarks.timing import Bench, arguments
from cbdm_scale.devices import open_device

PARTS = {
    "machine": (machine.ceilings, 10),
    "waits": (kernels.waits, 15),
    "right": (correctness.right, 60),
    "train": (training.training, 120),
    "host": (host.host, 20),
    "sample": (sampling.sample, 40),
    "features": (metrics.features, 15),
    "metrics": (metrics.metrics, 30),
    "profile": (kernels.profiled, 15),
    "compile": (training.compiling, 300),
}
"""Name -> what it does, and the seconds that it may take at most."""
MOST_TRIES = 3
"""Of a part, each in a new process."""


def names(text: str) -> list[str]:
    """Parts by their names, comma between; SystemExit names those that there are."""
    chosen = [name for name in text.split(",") if name]
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"part ({unknown[0]}) is not known. Choose from: {', '.join(PARTS)}.")
    return chosen


def main(words: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, repetitions=0)
    parser.add_argument("--budget", type=float, default=430, help="seconds in all")
    parser.add_argument("--only", type=names, default=list(PARTS), help="parts, comma between")
    parser.add_argument("--skip", type=names, default=[], help="parts, comma between")
    parser.add_argument("--tiny", action="store_true", help="on the CPU: does it run?")
    parser.add_argument("--go-on", action="store_true", help="add to what the file holds")
    args = parser.parse_args(words)
    cuda = torch.cuda.is_available() and not args.tiny
    if not (cuda or args.tiny):
        sys.exit("no GPU is there. Try --tiny, which runs every part on the CPU.")
    warnings.filterwarnings("ignore")
    older_torch.allow()
    args.raw = args.raw or f"{os.environ.get('OUT') or tempfile.mkdtemp()}/gpu.json"
    device, end = open_device(cuda), time.perf_counter() + args.budget
    bench = Bench(args, device=torch.cuda.get_device_name(0) if cuda else "cpu")
    context = Context(device=device, tiny=args.tiny, bench=bench)
    if args.go_on:
        context.go_on(json.loads(Path(args.raw).read_text())["samples"])
    todo = [name for name in PARTS if name in args.only and name not in args.skip]
    for name in todo:
        part, most = PARTS[name]
        begin = time.perf_counter()
        context.deadline = min(begin + most, end)
        if not context.has(5, name):
            continue
        print(f"== {name} ({end - begin:.0f} s left)", flush=True)
        try:
            with context.guarded(name):
                part(context)
        except LostDevice:
            context.lost.append(name)
            context.save()
            # What the part has done or failed at it leaves out, but it may have failed as such.
            over = name in context.failed or context.lost.count(name) == MOST_TRIES
            rest = ["--go-on", "--budget", str(end - time.perf_counter()), "--raw", args.raw]
            rest += ["--only", ",".join(todo[todo.index(name) + over :])]
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *rest])
        context.seconds_of[name] = round(time.perf_counter() - begin, 1)
        context.save()
    print("\nskipped:", *context.skipped, sep="\n  ")
    bench.finish(*context.tables)
    print("FAILED:" if context.failed else "nothing failed")
    for what, why in context.failed.items():
        print(f"  {what}: {why}")
    print(f"every figure: {args.raw}")
    return 1 if context.failed else 0


if __name__ == "__main__":
    sys.exit(main())
