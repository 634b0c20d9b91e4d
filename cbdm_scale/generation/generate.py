"""Making a set on the workers of a cluster: its plan, and what is missing of it."""

import time
from dataclasses import dataclass, field
from typing import Literal

from cbdm_scale.cluster import PoolConfig, run_jobs
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.generation.chunks import ChunkMaker
from cbdm_scale.generation.plan import SetPlan, label_probs, parse_classes
from cbdm_scale.generation.store import ChunkStore
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig, check_trained

SAY_EVERY_S = 5.0


def plan_set(
    origin: PretrainedNetwork,
    real: Manifest | None,
    *,
    omega: float,
    seed: int,
    chunk_size: int,
    precision: Literal["fp32", "bf16"],
    sample: SamplerConfig,
    labels: str = "cyclic",
    classes: str = "",
    guidance_mode: GuidanceMode = "cfg",
) -> SetPlan:
    """Everything that decides the images; ValueError if options do not fit the network."""
    check_trained("guidance_mode", guidance_mode, omega, origin.omega_max)
    config = origin.config
    sample.check_fits(config.process, config.diffusion.num_steps)
    chosen = parse_classes(classes, origin.num_classes)
    counts = real.counts["train"] if real else None
    return SetPlan(
        checkpoint=origin.checkpoint,
        weights_sha256=origin.weights_sha256,
        model=config.model,
        diffusion=config.diffusion,
        sample=sample,
        shape=(origin.channels, origin.image_size, origin.image_size),
        num_classes=origin.num_classes,
        augment=origin.augment,
        omega=omega,
        seed=seed,
        labels=labels,
        classes=chosen,
        probs=label_probs(labels, chosen, counts),
        chunk_size=chunk_size,
        precision=precision,
        omega_layer=origin.omega_max > 0,
        guidance_mode=guidance_mode,
        backbone=origin.config.backbone,
        process=config.process,
        edm=config.edm,
    )


@dataclass
class Meter:
    """Says now and then how far it is, and how long the rest will take."""

    kept: int
    """Images that were there before."""
    todo: int
    done: int = 0
    began: float = field(default_factory=time.perf_counter)
    said: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        """A line of the workers; while none has made anything, they are only starting."""
        print(text, flush=True)
        if not self.done:
            self.began = time.perf_counter()

    def add(self, num_images: int) -> None:
        now = time.perf_counter()
        self.done += num_images
        if now - self.said >= SAY_EVERY_S or self.done == self.todo:
            self.said = now
            left = int((self.todo - self.done) / self.rate(now))
            print(
                f"{self.kept + self.done:>9,}/{self.kept + self.todo:,} images | "
                f"{self.rate(now):.1f}/s | {left // 60}:{left % 60:02d} left",
                flush=True,
            )

    def rate(self, now: float) -> float:
        """Images a second since the last worker was ready that began before the first image."""
        return self.done / max(now - self.began, 1e-9)


def make_missing(
    store: ChunkStore, weights: bytes, num_images: int, cluster: PoolConfig
) -> Meter:
    """Make the chunks that are not there yet; ``weights`` is a safetensors file."""
    todo = store.missing(store.plan.chunks(num_images))
    total = sum(stop - first for first, stop in todo)
    meter = Meter(kept=num_images - total, todo=total)
    if meter.kept:
        print(f"{meter.kept:,} of {num_images:,} images are there already", flush=True)
    maker = ChunkMaker(store.plan, weights)
    for chunk, images in run_jobs(maker, todo, cluster, meter.say):
        store.write(chunk, images)
        meter.add(chunk[1] - chunk[0])
    meter.said = time.perf_counter()
    return meter
