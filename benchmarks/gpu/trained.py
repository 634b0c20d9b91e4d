"""What is done with a trained network: images, features, scores, as the commands make them."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from benchmarks.evaluation import DIM, our_parts
from benchmarks.evaluation import features as made_up
from benchmarks.gpu.context import Context, forward_flops, rounded
from benchmarks.sampling import untrained
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.extract import Extraction
from cbdm_scale.metrics.extractors import find_extractor
from cbdm_scale.metrics.features import ClassifierRecipe
from cbdm_scale.sampling.options import SamplerConfig, SamplerName

CASES: list[tuple[SamplerName, str, int, float]] = [
    ("ddpm", "bf16", 500, 1.0),
    ("ddpm", "fp32", 500, 1.0),
    ("ddpm", "bf16", 100, 1.0),
    ("dpm", "bf16", 500, 0.0),
]
"""Sampler, precision, images at once, strength of guidance."""


def sampling(context: Context) -> None:
    """A chunk of the paper's U-Net in a few steps; hours of 50,000 images of 1,000 steps."""
    spec, steps = context.spec(dropout=0.0), 2 if context.tiny else 20
    for name, precision, most, omega in CASES:
        n = min(most, 4) if context.tiny else most
        key = f"{name}, {precision}, {n} at once, omega {omega:g}"
        if context.has(8, key):
            with context.guarded("sample", key):
                asked = {"omega": omega, "chunk_size": n, "precision": precision}
                sampler = SamplerConfig(name=name, num_steps=steps)
                make = untrained(spec, sampler, **asked)(context.device)
                a_step = context.seconds(lambda make=make, n=n: make((0, n)), 2, 1) / steps
                flops = (2 if omega else 1) * n * forward_flops(spec) / a_step
                found = {"ms a step": 1e3 * a_step, "images/s of 1,000 steps": n / a_step / 1e3}
                found["hours of 50,000 x 1,000 steps"] = 50_000 / n * a_step / 3.6
                found["% of the peak"] = 100 * flops / context.peak_flops
                context.note("sample", key, rounded(found))


def features(context: Context) -> None:
    """Images a second: the small classifier's, and Inception's where its weights are."""
    small = SmallClassifier(image_channels=3, image_size=32, num_classes=10)
    recipes = {"classifier": lambda: ClassifierRecipe(save_classifier(small), "random")}
    recipes["inception"] = lambda: find_extractor("inception", "")
    n = 8 if context.tiny else 4096
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), np.uint8)

    def read(numbers: Sequence[int]) -> np.ndarray:
        return pixels[np.asarray(numbers)]

    for name, recipe in recipes.items():
        try:
            work = Extraction(SimpleNamespace(read=read), recipe())(context.device)
        except (ValueError, ImportError) as error:
            context.skipped.append(f"features of {name}: {str(error)[:120]}")
            continue
        seconds = context.seconds(lambda work=work: work((0, n)), 2, 1)
        context.note("features", f"{name}, images/s", round(n / seconds, 1))


def metrics(context: Context) -> None:
    """Seconds of each score of so many real and generated images."""
    n, dim = (100, 64) if context.tiny else (50_000, DIM)
    sides = [made_up(seed, n, 10)[:, :dim].contiguous().to(context.device) for seed in (1, 2)]
    for name, score in our_parts(10).items():
        if context.has(5, name):
            with context.guarded("metrics", name):
                cost = context.turn(lambda score=score: score(*sides))
                context.note("metrics", f"s of {name}, {n:,} a side", round(cost.wall, 2))
