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

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from safetensors.torch import save

from benchmarks.timing import (
    Samples,
    interleave,
    median,
    processor,
    ratio_of_medians,
    write_raw,
)
from cbdm_scale.cluster import PoolConfig, run_jobs
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
        omega_max=config.loss.strongest,
    )
    plan = SetPlan(
        checkpoint="fresh",
        weights_sha256="",
        network=spec,
        noise=config.noise,
        sample=config.sample,
        omega=config.eval.omegas[0],
        seed=0,
        labels="cyclic",
        classes=tuple(range(10)),
        probs=(),
        chunk_size=100,
        precision="fp32",
    )
    return ChunkMaker(plan, save(build(spec).state_dict()))


def run_maker(run: str) -> ChunkMaker:
    origin = load_pretrained(run)
    options = SampleOptions(
        run=run, sample=origin.config.sample, guidance=origin.config.eval.omegas[0]
    )
    return ChunkMaker(make_plan(options, origin, None), origin.weights)


def in_process(maker: ChunkMaker, repetitions: int) -> dict[str, Samples]:
    """Seconds of one chunk: guided at all levels, in one call a step, inside the interval, and
    not at all. A network without the omega-conditioned layer has no one call."""
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
    makers = {name: ChunkMaker(plan, maker.weights)(cpu) for name, plan in plans.items()}
    variants = {name: partial(make_one, make, chunk) for name, make in makers.items()}
    for warm_up in variants.values():
        warm_up()
    return interleave(variants, repetitions, lambda samples: None)


def make_one(make: Callable[[Chunk], object], chunk: Chunk) -> None:
    make(chunk)


@dataclass(frozen=True)
class TimedMaker:
    """A chunk of images, and back comes the CPU time that it took its worker."""

    maker: ChunkMaker

    def __call__(self, device: torch.device) -> Callable[[Chunk], float]:
        make = self.maker(device)

        def timed(chunk: Chunk) -> float:
            before = time.process_time()
            make(chunk)
            return time.process_time() - before

        return timed


def on_workers(maker: ChunkMaker, images: int, repetitions: int) -> dict[str, Samples]:
    """Seconds for a set on one and on two workers, from when all are ready."""
    samples = {"1 worker": Samples(), "2 workers": Samples()}
    for repetition in range(repetitions):
        for workers, s in enumerate(samples.values(), start=1):
            wall, cpu = seconds_for_a_set(maker, images, workers)
            s.wall.append(wall)
            s.cpu.append(cpu)
        last = " | ".join(f"{n} {s.wall[-1]:.2f} ({s.cpu[-1]:.2f})" for n, s in samples.items())
        print(f"{repetition + 1:>3}/{repetitions} wall (CPU) seconds: {last}", flush=True)
    return samples


def seconds_for_a_set(maker: ChunkMaker, images: int, workers: int) -> tuple[float, float]:
    """Wall time at the speed from when the last worker was ready, and CPU time of them all."""
    ready: list[tuple[float, int]] = []
    done, cpu = 0, 0.0

    def say(line: str) -> None:
        ready.append((time.perf_counter(), done))

    jobs, config = maker.plan.chunks(images), PoolConfig(workers=workers, device="cpu")
    for (first, stop), seconds in run_jobs(TimedMaker(maker), jobs, config, say):
        done, cpu = done + stop - first, cpu + seconds
    began, before = ready[workers - 1]
    return (time.perf_counter() - began) * images / (images - before), cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", default="", help="a run, as the sample command takes it")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--worker-repetitions", type=int, default=30, help="0: none")
    parser.add_argument("--images", type=int, default=400, help="per repetition, on workers")
    parser.add_argument("--raw", default="", help="JSON file for every single figure")
    parser.add_argument("--chunk-size", type=int, default=100, help="images made at once")
    args = parser.parse_args()
    maker = run_maker(args.run) if args.run else digits_maker()
    maker = replace(maker, plan=replace(maker.plan, chunk_size=args.chunk_size))
    sampler, size = maker.plan.sample, maker.plan.chunk_size
    about: dict[str, object] = {
        "processor": processor(),
        "torch": torch.__version__,
        "sampler": f"{sampler.name}, {sampler.num_steps} steps, omega {maker.plan.omega:g}",
        "images at once": size,
        "repetitions": f"{args.repetitions} here, {args.worker_repetitions} on workers",
        "load average before": os.getloadavg()[0],
    }
    here = in_process(maker, args.repetitions)
    away = on_workers(maker, args.images, args.worker_repetitions)
    about["load average after"] = os.getloadavg()[0]
    if args.raw:
        write_raw(args.raw, about, here | away)
    for key, value in about.items():
        print(f"{key}: {value}")
    print("\n| | images/s | times the first | images a CPU second | times the first |")
    print("|---|---|---|---|---|")
    for samples, images in ((here, size), (away, args.images)):
        if not next(iter(samples.values())).wall:
            continue
        first = next(iter(samples.values()))
        for name, s in samples.items():
            wall, cpu = (images / median(torch.tensor(t)).item() for t in (s.wall, s.cpu))
            faster, cheaper = (
                ratio_of_medians(first.wall, s.wall),
                ratio_of_medians(first.cpu, s.cpu),
            )
            print(f"| {name} | {wall:.1f} | {faster} | {cpu:.1f} | {cheaper} |")


if __name__ == "__main__":
    main()
