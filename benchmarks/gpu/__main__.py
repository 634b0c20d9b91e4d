"""One short run on a GPU: how fast are training, sampling, features and metrics there?

    python -m benchmarks.gpu [--budget 430] [--only machine train] [--tiny]

Needs torch, numpy, scipy and safetensors; neither ray nor mlflow nor webdataset. Every figure
is in $OUT/gpu.json as soon as its part is over. What fails is named and the rest goes on.
--tiny: on the CPU, in a minute or two. Whether all is right there: tests/test_gpu*.py.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence

import torch

from benchmarks.gpu import host, machine, older_torch, trained, training
from benchmarks.gpu.context import Context
from benchmarks.timing import Bench, parse
from cbdm_scale.devices import open_device

PARTS = {
    "machine": (machine.ceilings, 10),
    "train": (training.training, 150),
    "host": (host.host, 20),
    "sample": (trained.sampling, 40),
    "features": (trained.features, 15),
    "metrics": (trained.metrics, 40),
    "deterministic": (training.deterministic, 20),
    "compile": (training.compiling, 300),
}
"""Name -> what it does, and the seconds that it may take at most."""


def main(words: Sequence[str] | None = None) -> int:
    args = parse(__doc__, words, raw="", budget=430.0, only=PARTS, tiny=False)
    cuda = torch.cuda.is_available() and not args.tiny
    if not (cuda or args.tiny):
        sys.exit("no GPU is there. Try --tiny, which runs every part on the CPU.")
    warnings.filterwarnings("ignore")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as "deterministic" wants it
    older_torch.allow()
    args.raw = args.raw or f"{os.environ.get('OUT') or tempfile.mkdtemp()}/gpu.json"
    device, end = open_device(cuda), time.perf_counter() + args.budget
    bench = Bench(args, device=torch.cuda.get_device_name(0) if cuda else "cpu")
    context = Context(device, args.tiny, bench)
    for name in args.only:
        part, most = PARTS[name]
        context.deadline = min(time.perf_counter() + most, end)
        if context.has(5, name):
            print(f"== {name} ({end - time.perf_counter():.0f} s left)", flush=True)
            with context.guarded(name):
                part(context)
        bench.keep({"failed": context.failed, "skipped": context.skipped})
    print("\nskipped:", *context.skipped, sep="\n  ")
    bench.finish(*context.tables)
    print("FAILED:" if context.failed else "nothing failed")
    for what, why in context.failed.items():
        print(f"  {what}: {why}")
    print(f"every figure: {args.raw}")
    return 1 if context.failed else 0


if __name__ == "__main__":
    sys.exit(main())
