"""Features and metrics: equal to the CPU's, and how long they take."""

import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.context import Context, difference
from cbdm_scale.metrics.features import Recipe


def random_inception() -> Recipe:
    """The product's recipe of an Inception with random weights that keep activations alive."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from cbdm_scale.metrics.inception import find_inception

    load = nn.Module.load_state_dict
    load_file = torch.load
    try:  # there is no constructor without a file of weights
        FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
        torch.load = lambda *given, **named: {}
        torch.manual_seed(0)
        whole = FeatureExtractorInceptionV3("inception", ["2048"], "none")
    finally:
        torch.load = load_file
        FeatureExtractorInceptionV3.load_state_dict = load
    for module in whole.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(whole.state_dict(), file.name)
        return find_inception(file.name, allow=True)


def features(context: Context) -> None:
    """Inception: differences from the CPU, images a second by batch."""
    try:
        recipe = random_inception()
    except ImportError:
        context.skipped.append("features: torch_fidelity is not installed")
        return
    extractor, note = recipe.load(context.device), context.note
    g = torch.Generator().manual_seed(0)
    rough = torch.randint(0, 256, (512, 3, 4, 4), generator=g).float()
    images = F.interpolate(rough, (32, 32), mode="bilinear").to(torch.uint8)
    few = images[: 2 if context.tiny else 16]
    expected = recipe.load("cpu")(few).pool
    off = difference(extractor(few).pool, expected)
    note("features", "difference from the CPU", float(f"{off:.2e}"))
    for n in (2,) if context.tiny else (64, 256):
        s = context.seconds(lambda n=n: extractor(images[:n]).pool.cpu(), 3, 1)
        note("features", f"images/s, batch {n}", round(n / s))


def made_up(n: int, seed: int, dim: int) -> Tensor:
    """Features (n, dim) of a mixture, rectified."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, dim, generator=torch.Generator().manual_seed(99)) / 8
    x = torch.randn(n, 64, generator=g) @ mix + 0.05 * seed
    return (x + 0.1 * torch.randn(n, dim, generator=g)).relu()


def metrics(context: Context) -> None:
    """The CPU's values on a few features, seconds on many."""
    few, dim = (300, 128) if context.tiny else (3000, 2048)
    a, b = made_up(few, 1, dim), made_up(few, 2, dim)
    with context.guarded("metrics", "agree"):
        agree(context, a, b)
    with context.guarded("metrics", "FID"):
        frechet(context, a, b)
    n = 600 if context.tiny else 50_000
    x, y = (made_up(n, seed, dim).to(context.device) for seed in (1, 2))
    with context.guarded("metrics", "many"):
        many(context, x, y)


def agree(context: Context, a: Tensor, b: Tensor) -> None:
    from cbdm_scale.metrics.intervals import kid_interval
    from cbdm_scale.metrics.memorisation import memorisation
    from cbdm_scale.metrics.prd import prd
    from cbdm_scale.metrics.precision_recall import manifold_scores

    x, y, note = a.to(context.device), b.to(context.device), context.note
    here = manifold_scores(a, b)
    note("metrics", "precision and recall: the CPU's", here == manifold_scores(x, y))
    p, q = prd(a, b, 10, num_runs=2), prd(x, y, 10, num_runs=2)
    note("metrics", "F_8 on the CPU, on the device", [round(p.f8, 4), round(q.f8, 4)])
    k, m = kid_interval(a, b), kid_interval(x, y)
    note("metrics", "KID, relative difference", abs(k.value - m.value) / abs(k.value))
    labels = torch.arange(len(a)) % 10
    u = memorisation(a, labels, b, labels, [50] * 10)
    v = memorisation(x, labels, y, labels, [50] * 10)
    note("metrics", "memorisation: the CPU's", u.nearest.equal(v.nearest))
    if not context.is_cuda:
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    note("metrics", "also where TF32 is allowed", here == manifold_scores(x, y))
    torch.backends.cuda.matmul.allow_tf32 = False


def frechet(context: Context, a: Tensor, b: Tensor) -> None:
    from cbdm_scale.metrics.fid import frechet_distance, moments_of

    m, w = moments_of(a), moments_of(b)
    s = context.seconds(lambda: frechet_distance(m, w), 1, 0)
    context.note("metrics", f"s of a Frechet distance of {a.shape[1]:,} features", round(s, 2))
    if context.is_cuda:
        c = m.covariance.to(context.device)
        s = context.seconds(lambda: torch.linalg.eigh(c), 2, 1)
        context.note("metrics", "s of its eigenvalues on the device", round(s, 3))


def many(context: Context, x: Tensor, y: Tensor) -> None:
    from cbdm_scale.metrics.intervals import kid_interval
    from cbdm_scale.metrics.prd import prd
    from cbdm_scale.metrics.precision_recall import manifold_scores

    s = context.seconds(lambda: manifold_scores(x, y), 1, 0)
    context.note("metrics", f"s of precision and recall of {len(x):,}", round(s, 2))
    s = context.seconds(lambda: kid_interval(x[:10_000], y[:10_000]), 1, 0)
    context.note("metrics", "s of KID of 10,000 with its interval", round(s, 2))
    runs = 2 if context.tiny else 10
    s = context.seconds(lambda: prd(x, y, runs * 10, num_runs=runs), 1, 0)
    context.note("metrics", f"s of PRD of {len(x):,}, {runs} runs", round(s, 2))
