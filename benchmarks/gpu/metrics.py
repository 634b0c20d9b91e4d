"""Features and metrics: equal to the CPU's, and how long they take."""

import tempfile
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evaluation import DIM, our_parts
from benchmarks.evaluation import features as made_up
from benchmarks.gpu.context import Context, difference
from cbdm_scale.metrics.extract import Extraction
from cbdm_scale.metrics.features import Recipe
from cbdm_scale.metrics.kid import kid

KID_IMAGES = 10_000


def random_inception() -> Recipe:
    """The product's recipe of an Inception with random weights that keep activations alive."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    from cbdm_scale.metrics.inception import find_inception

    torch.manual_seed(0)
    with (  # it cannot be asked for one without published weights
        patch.object(fidelity, "load_state_dict_from_url", lambda *given, **named: {}),
        patch.object(nn.Module, "load_state_dict", lambda self, state: None),
    ):
        whole = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    for module in whole.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(whole.state_dict(), file.name)
        return find_inception(file.name, allow=True)


class SmoothImages:
    """Images of 32 px in memory."""

    def __init__(self, count: int):
        rough = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
        self.pixels = F.interpolate(rough, (32, 32), mode="bilinear").byte().numpy()
        self.count, self.labels, self.fingerprint = count, np.zeros(count, np.int64), ""

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return self.pixels[np.asarray(numbers)]


def features(context: Context) -> None:
    """Inception's of the jobs that a worker is given."""
    try:
        recipe = random_inception()
    except ImportError:
        context.skipped.append("features: torch_fidelity is not installed")
        return
    few, many = (2, 4) if context.tiny else (16, 2048)
    images = SmoothImages(many)
    work, expected = (
        Extraction(images, recipe)(device) for device in (context.device, torch.device("cpu"))
    )
    a, b = (torch.from_numpy(job((0, few))["pool"]) for job in (work, expected))
    context.note("features", "difference from the CPU", float(f"{difference(a, b):.2e}"))
    seconds = context.seconds(lambda: work((0, many)), 2, 1)
    context.note("features", "images/s", round(many / seconds, 1))


def metrics(context: Context) -> None:
    """The CPU's values of few images, seconds of many."""

    def features_of(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        dim = 128 if context.tiny else DIM
        real, fake = (made_up(seed, n, 10)[:, :dim].contiguous() for seed in (1, 2))
        return real.to(device), (0.97 * fake).to(device)

    few, many = (300, 300) if context.tiny else (3000, 50_000)
    here = features_of(few, torch.device("cpu"))
    there = [side.to(context.device) for side in here]
    large = features_of(many, context.device)
    scores = our_parts(10)
    scores["KID of 10,000"] = lambda x, y: [kid(x[:KID_IMAGES], y[:KID_IMAGES])]
    for name, score in scores.items():
        if not context.has(5, f"metrics: {name}"):
            continue
        with context.guarded("metrics", name):
            found, expected = (torch.tensor(score(*sides)) for sides in (there, here))
            off = float(f"{difference(found, expected):.2e}")
            context.note("metrics", f"{name}: difference from the CPU", off)
            seconds = context.seconds(lambda score=score: score(*large), 1, 0)
            context.note("metrics", f"s of {name}, {many:,} a side", round(seconds, 2))
