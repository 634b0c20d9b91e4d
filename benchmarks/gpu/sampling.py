"""Sampling as the sample command does it: images a second, hours of a set of 50,000."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from safetensors.torch import save

from benchmarks.gpu.context import Context, awake, forward_flops, fresh, rounded
from benchmarks.step import NUM_CLASSES
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.generation.generate import ChunkMaker
from cbdm_scale.generation.plan import Chunk, SetPlan
from cbdm_scale.sampling.options import SamplerConfig, SamplerName

Precision = Literal["fp32", "bf16"]


def maker(
    context: Context, chunk_size: int, precision: Precision, omega: float, **sampler: Any
) -> Callable[[Chunk], np.ndarray]:
    """What a worker makes chunks of a set with: the paper's U-Net."""
    spec = context.spec(dropout=0.0)
    plan = SetPlan(
        checkpoint="fresh",
        weights_sha256="",
        network=spec,
        noise=NoiseConfig(),
        sample=SamplerConfig(**sampler),
        omega=omega,
        seed=0,
        labels="cyclic",
        classes=tuple(range(NUM_CLASSES)),
        probs=(),
        chunk_size=chunk_size,
        precision=precision,
    )
    return ChunkMaker(plan, save(awake(fresh(spec)).state_dict()))(context.device)


def sample(context: Context) -> None:
    """By sampler, precision, chunk size; guided and not."""
    cases: list[tuple[SamplerName, Precision, int, float]] = [
        ("ddpm", "bf16", 500, 1.0),
        ("ddpm", "bf16", 100, 1.0),
        ("ddpm", "fp32", 100, 1.0),
        ("ddim", "bf16", 500, 1.0),
        ("ddim", "bf16", 500, 0.0),
        ("dpm", "bf16", 500, 1.0),
    ]
    if context.tiny:
        cases = [("ddpm", "bf16", 4, 1.0), ("dpm", "fp32", 4, 0.0)]
    for name, precision, chunk, omega in cases:
        key = f"{name}, {precision}, chunk {chunk}, omega {omega:g}"
        if not context.is_done("sample", key) and context.has(8, f"sample: {key}"):
            with context.guarded("sample", key):
                measure(context, key, chunk, precision, omega, name)
    with context.guarded("sample", "the same bytes again"):
        again(context, 4 if context.tiny else 100)


def measure(
    context: Context,
    key: str,
    chunk: int,
    precision: Precision,
    omega: float,
    name: SamplerName,
) -> None:
    """A chunk, of few steps."""
    steps = 2 if context.tiny else 20
    make = maker(context, chunk, precision, omega, name=name, num_steps=steps)
    a_step = context.seconds(lambda: make((0, chunk)), 2, 1) / steps
    flops = (2 if omega else 1) * chunk * forward_flops(context.spec()) / a_step
    found = {
        "ms a step": 1e3 * a_step,
        "images/s of 1,000 steps": chunk / a_step / 1000,
        "hours of 50,000 x 1,000 steps": 50_000 / chunk * 1000 * a_step / 3600,
        "% of the peak": 100 * flops / context.peak_flops,
    }
    context.note("sample", key, rounded(found))


def again(context: Context, chunk: int) -> None:
    """Two workers that make the same chunk."""
    makers = [maker(context, chunk, "bf16", 1.0, num_steps=2) for _ in range(2)]
    one, two = (make((0, chunk)) for make in makers)
    same = bool((one == two).all())
    context.note("sample", "the same chunk of another worker: the same bytes", same)
