"""Guided sampling in images a second: one prediction a step (TCFG) or a guidance interval
against two predictions, 2 workers against 1.

    python -m benchmarks.sampling [--repetitions 30] [--images 400] [--chunk-size 100]

One call and the interval are compared in this process, one thread, DDIM as the preset has it.
The workers are Ray actors, one thread each; a repetition starts them for --images images, and
the speed is that from when they are all ready to the last image. Medians; images a second of
CPU time do not depend on who else uses the machine (less so: they share its caches). The
network is that of the digits' preset tcfg with fresh weights: the time does not depend on them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from safetensors.torch import save

from benchmarks.timing import Bench, Cost, Variant, arguments, table, timed
from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from cbdm_scale.config.presets import PUBLISHED, preset
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.generation.chunks import ChunkMaker
from cbdm_scale.generation.plan import Chunk, plan_set
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.sampling.options import SamplerConfig

INTERVAL = 0.2, 0.7
"""In units of t / T: half of the steps."""
ALWAYS, INSIDE, PLAIN = "guided (CFG)", f"guided inside {INTERVAL}", "not guided"
ONE_CALL = "guided, one call (TCFG)"


def digits_maker(chunk_size: int) -> ChunkMaker:
    """Makes sets with a network that nobody has trained."""
    config = preset("digits_lt", "tcfg")
    asked = {"omega": config.eval.guidance[0], "chunk_size": chunk_size, "precision": "fp32"}
    return untrained(network_spec(config, PUBLISHED["digits_lt"]), config.sample, **asked)


def untrained(spec: NetworkSpec, sampler: SamplerConfig, **asked: Any) -> ChunkMaker:
    """The same of any network, with strength, chunk and precision as `plan_set` takes them."""
    torch.manual_seed(0)
    unknown: dict[str, Any] = {"checkpoint": "fresh", "weights_sha256": "", "counts": None}
    plan = plan_set(
        spec, NoiseConfig(), sample=sampler, seed=0, on_gpu=False, **unknown, **asked
    )
    return ChunkMaker(plan, save(build(spec).state_dict()))


def in_process(maker: ChunkMaker) -> dict[str, Variant]:
    """A chunk: guided at all levels, in one call a step, inside the interval, and unguided."""
    torch.set_num_threads(1)
    low, high = INTERVAL
    inside = replace(maker.plan.sample, guidance_from=low, guidance_to=high)
    plans = {
        ALWAYS: maker.plan,
        ONE_CALL: replace(maker.plan, guidance_mode="tcfg"),
        INSIDE: replace(maker.plan, sample=inside),
        PLAIN: replace(maker.plan, omega=0.0),
    }
    cpu, chunk = torch.device("cpu"), (0, maker.plan.chunk_size)
    variants: dict[str, Variant] = {}
    for name, plan in plans.items():
        make = ChunkMaker(plan, maker.weights)(cpu)
        make(chunk)  # warm-up
        variants[name] = lambda make=make: timed(lambda: make(chunk))
    return variants


@dataclass(frozen=True)
class TimedMaker:
    """A chunk of images, and back comes the CPU time that it took its worker."""

    maker: ChunkMaker

    def __call__(self, device: torch.device) -> Callable[[Chunk], float]:
        make = self.maker(device)
        return lambda chunk: timed(lambda: make(chunk)).cpu


def on_workers(maker: ChunkMaker, images: int, workers: int) -> Cost:
    """Wall time at the speed from when the last worker was ready, and CPU time of them all."""
    ready: list[tuple[float, int]] = []
    done, cpu = 0, 0.0

    def note_ready(line: str) -> None:
        ready.append((time.perf_counter(), done))

    jobs, config = maker.plan.chunks(images), PoolConfig(workers=workers, device="cpu")
    for (first, stop), seconds in run_jobs(TimedMaker(maker), jobs, config, note_ready):
        done, cpu = done + stop - first, cpu + seconds
    began, before = ready[workers - 1]
    return Cost((time.perf_counter() - began) * images / (images - before), cpu)


def main() -> None:
    args = arguments(__doc__, worker_repetitions=30, images=400, chunk_size=100)
    size = args.chunk_size
    maker = digits_maker(size)
    sampler = maker.plan.sample
    bench = Bench(
        args,
        sampler=f"{sampler.name}, {sampler.num_steps} steps, omega {maker.plan.omega:g}",
        **{"images at once": size, "repetitions on workers": args.worker_repetitions},
    )
    tables = [table(bench.compare(in_process(maker)), under=[ALWAYS], items=size)]
    if args.worker_repetitions:
        workers = {f"{n} worker{'s' * (n > 1)}": n for n in (1, 2)}
        variants = {k: partial(on_workers, maker, args.images, n) for k, n in workers.items()}
        samples = bench.compare(variants, repetitions=args.worker_repetitions)
        tables.append(table(samples, under=["1 worker"], items=args.images))
    bench.finish(*tables)


if __name__ == "__main__":
    main()
