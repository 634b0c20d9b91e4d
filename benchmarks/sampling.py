"""Guided sampling in images a second: one prediction a step (TCFG) or a guidance interval
against two predictions, 2 workers against 1.

    python -m benchmarks.sampling [--run RUN] [--repetitions 30] [--images 400] [--raw FILE]

One call and the interval are compared in this process, one thread, DDIM as the run configures
it. The workers are Ray actors, one thread each; a repetition starts them, and the speed is that
from the moment they are all ready to the last image. Medians; images a second of CPU time do
not depend on who else uses the machine (less so: they share its caches). Without
``--run`` the network is that of the digits' preset tcfg with fresh weights: the time does not
depend on them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from safetensors.torch import save

from benchmarks.timing import Bench, Cost, Variant, arguments, table, timed
from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from cbdm_scale.config.presets import preset
from cbdm_scale.generation.generate import ChunkMaker
from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sample import SampleOptions, make_plan

INTERVAL = 0.2, 0.7
"""In units of t / T: half of the steps."""
ALWAYS, INSIDE, PLAIN = "guided (CFG)", f"guided inside {INTERVAL}", "not guided"
ONE_CALL = "guided, one call (TCFG)"


def digits_maker() -> ChunkMaker:
    config = preset("digits_lt", "tcfg")
    torch.manual_seed(0)
    spec = NetworkSpec(
        model=config.model,
        channels=1,
        image_size=8,
        num_classes=10,
        omega_max=config.loss.max_guidance,
    )
    plan = SetPlan(
        checkpoint="fresh",
        weights_sha256="",
        network=spec,
        noise=config.noise,
        sample=config.sample,
        omega=config.eval.guidance[0],
        seed=0,
        labels="cyclic",
        classes=tuple(range(10)),
        probs=(),
        chunk_size=100,
        precision="fp32",
    )
    return ChunkMaker(plan, save(build(spec).state_dict()))


def run_maker(run: str) -> ChunkMaker:
    pretrained = load_pretrained(run)
    options = SampleOptions(
        run=run, sample=pretrained.config.sample, guidance=pretrained.config.eval.guidance[:1]
    )
    return ChunkMaker(
        make_plan(options, pretrained, None, options.guidance[0]), pretrained.weights
    )


def in_process(maker: ChunkMaker) -> dict[str, Variant]:
    """A chunk: guided at all levels, in one call a step, inside the interval, and not at all.

    A network without the omega-conditioned layer has no one call.
    """
    torch.set_num_threads(1)
    low, high = INTERVAL
    inside = replace(maker.plan.sample, guidance_from=low, guidance_to=high)
    plans = {
        ALWAYS: maker.plan,
        ONE_CALL: replace(maker.plan, guidance_mode="tcfg"),
        INSIDE: replace(maker.plan, sample=inside),
        PLAIN: replace(maker.plan, omega=0.0),
    }
    if not maker.plan.network.omega_max:
        del plans[ONE_CALL]
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
    parser = arguments(__doc__)
    parser.add_argument("--run", default="", help="a run, as the sample command takes it")
    parser.add_argument("--worker-repetitions", type=int, default=30, help="0: none")
    parser.add_argument("--images", type=int, default=400, help="per repetition, on workers")
    parser.add_argument("--chunk-size", type=int, default=100, help="images made at once")
    args = parser.parse_args()
    maker = run_maker(args.run) if args.run else digits_maker()
    maker = replace(maker, plan=replace(maker.plan, chunk_size=args.chunk_size))
    sampler, size = maker.plan.sample, maker.plan.chunk_size
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
