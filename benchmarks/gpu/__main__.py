"""One short run on a GPU: is everything right there, how fast is it, where does the time go?

    python -m benchmarks.gpu [--budget 430] [--only right,train] [--skip compile] [--tiny]

Needs torch, numpy, scipy and safetensors, and for Inception's speed torch_fidelity; neither
ray nor mlflow nor webdataset. Writes $OUT/gpu.json after every part. A part that fails is
named and the others go on. --tiny: on the CPU, in a minute or two.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks.gpu import correctness, metrics, older_torch, sampling, training
from benchmarks.gpu.context import Context, lines
from benchmarks.timing import Bench, arguments

PARTS = {
    "machine": (training.machine, 10),
    "right": (correctness.right, 40),
    "pieces": (correctness.pieces, 15),
    "train": (training.training, 60),
    "host": (training.host, 5),
    "sample": (sampling.sample, 30),
    "profile": (training.profiled, 10),
    "features": (metrics.features, 15),
    "metrics": (metrics.metrics, 25),
    "compile": (training.compiling, 60),
}
"""Name -> what it does, and the seconds below which it is not begun."""


def names(text: str) -> list[str]:
    """Parts by their names, comma between; SystemExit names those that there are."""
    chosen = [name for name in text.split(",") if name]
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"part ({unknown[0]}) is not known. Choose from: {', '.join(PARTS)}.")
    return chosen


def main() -> int:
    parser = arguments(__doc__, repetitions=0)
    parser.add_argument("--budget", type=float, default=430, help="seconds in all")
    parser.add_argument("--only", type=names, default=list(PARTS), help="parts, comma between")
    parser.add_argument("--skip", type=names, default=[], help="parts, comma between")
    parser.add_argument("--tiny", action="store_true", help="on the CPU: does it run?")
    args = parser.parse_args()
    cuda = torch.cuda.is_available() and not args.tiny
    if not (cuda or args.tiny):
        sys.exit("no GPU is there. Try --tiny, which runs every part on the CPU.")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warnings.filterwarnings("ignore")
    older_torch.allow()
    if folder := os.environ.get("OUT"):
        args.raw = args.raw or str(Path(folder) / "gpu.json")
    bench = Bench(args, device=torch.cuda.get_device_name(0) if cuda else "cpu")
    context = Context(
        device=torch.device("cuda", 0) if cuda else torch.device("cpu"),
        tiny=args.tiny,
        deadline=time.perf_counter() + args.budget,
        bench=bench,
    )
    spent: dict[str, float] = {}
    for name, (part, least) in PARTS.items():
        if name not in args.only or name in args.skip:
            continue
        if not args.tiny and context.left() < least:
            context.skipped.append(name)
            continue
        print(f"== {name} ({context.left():.0f} s left)", flush=True)
        begin = time.perf_counter()
        with context.guarded(name):
            part(context)
        spent[name] = round(time.perf_counter() - begin, 1)
        state = {"seconds": spent, "failed": context.failed, "skipped": context.skipped}
        bench.keep(state)
        if cuda:
            torch.cuda.empty_cache()
    summarise(context)
    return 1 if context.failed else 0


def summarise(context: Context) -> None:
    """Everything once more, the tables last but for what failed."""
    figures = context.bench.figures
    print()
    for part in (name for name in PARTS if name in figures and name not in ("train", "sample")):
        for key, value in figures[part].items():
            if key != "gradients" and "longest" not in key:
                print(f"{part}: {key}: {value}")
    for part in ("sample", "train"):
        tables = {k: v for k, v in figures.get(part, {}).items() if isinstance(v, dict)}
        print(f"\n{lines(tables)}")
    print(f"\nseconds: {figures['seconds']}\nskipped: {context.skipped}")
    print("FAILED:" if context.failed else "nothing failed")
    for what, why in context.failed.items():
        print(f"  {what}: {why}")


if __name__ == "__main__":
    sys.exit(main())
