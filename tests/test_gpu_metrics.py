"""On a GPU the metrics are the CPU's, to the bounds of docs/evaluation.md."""

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from extractor_tools import dinov2_shapes, random_inception
from feature_tools import skewed
from gpu_tools import DEVICE, ON_GPU, no_gpu
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cbdm_scale.metrics import features, neighbours
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.dinov2 import _DinoExtractor, find_dinov2
from cbdm_scale.metrics.extract import Extraction
from cbdm_scale.metrics.fid import fid, moments_of
from cbdm_scale.metrics.inception import _InceptionExtractor, find_inception
from cbdm_scale.metrics.kid import _across_mean, _within_mean, kid
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.options import Resize
from cbdm_scale.metrics.prd import kmeans, nearest_centre, prd
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.models.resnet import ResNet32

aten = torch.ops.aten

X, Y = skewed(0, 5000, 64), skewed(1, 4000, 64) + 0.2


@pytest.fixture(params=["ieee", "tf32"])
def allowed(request):
    """What others allow outside changes nothing."""
    product = torch.backends.cuda.matmul
    before, product.fp32_precision = product.fp32_precision, request.param
    yield
    product.fp32_precision = before


@no_gpu
@pytest.mark.gpu
def test_neighbours_are_the_cpus(allowed):
    assert manifold_scores(X.to(DEVICE), Y.to(DEVICE)) == manifold_scores(X, Y)
    y = torch.zeros(len(X), dtype=torch.int64)
    here, there = (
        memorisation(x.to(d), y, q.to(d), y[: len(Y)], [len(X)])
        for x, q, d in ((X, Y, "cpu"), (X, Y, DEVICE))
    )
    assert torch.equal(here.nearest, there.nearest)


@no_gpu
@pytest.mark.gpu
def test_distances_are_the_cpus(allowed):
    assert fid(X.to(DEVICE), Y.to(DEVICE)) == pytest.approx(fid(X, Y), rel=1e-6)
    assert fid(X.to(DEVICE), Y[:9].to(DEVICE)) == pytest.approx(fid(X, Y[:9]), rel=1e-6)
    assert fid(X[:9].to(DEVICE), Y.to(DEVICE)) == pytest.approx(fid(X[:9], Y), rel=1e-6)
    assert kid(X.to(DEVICE), Y.to(DEVICE)) == pytest.approx(kid(X, Y), rel=1e-4)


@no_gpu
@pytest.mark.gpu
def test_clusters_are_nearly_the_cpus(allowed):
    here, there = prd(X, Y, 3, num_runs=2), prd(X.to(DEVICE), Y.to(DEVICE), 3, num_runs=2)
    assert there.f8 == pytest.approx(here.f8, abs=0.01)
    assert there.f_eighth == pytest.approx(here.f_eighth, abs=0.01)


@no_gpu
@pytest.mark.gpu
def test_features_that_are_not_finite_are_named():
    broken = X.clone()
    broken[7, 3] = torch.inf
    with pytest.raises(ValueError, match="non-finite"):
        fid(broken.to(DEVICE), Y.to(DEVICE))


def test_no_part_mixes_devices_or_waits_for_the_host():
    """On tensors that are CUDA's in name only: a value that is asked for is an error there."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, y = torch.empty(300, 8, device="cuda"), torch.empty(200, 8, device="cuda")
        moments = moments_of(x) + moments_of(y) - moments_of(y)
        a, b = (neighbours._Side(side, y.mean(0), torch.float32) for side in (x, y))
        found = neighbours._Nearest(300, 21, x.device)
        for row, column, screened in neighbours._blocks(a, b, upper=False):
            screened.diagonal(row - column).fill_(torch.inf)
            found.look(screened, row, column)
        pairs = found.index[:, 0], found.index[:, 1]
        ones = torch.ones(300, dtype=torch.float64, device="cuda")
        results = (
            moments.outer,
            found.index,
            neighbours._squared_distance(x, x, pairs),
            neighbours._Balls(a, b, ones).sure,
            nearest_centre(x, kmeans(x, 20)),
            _within_mean(x, torch.ones(300, 3, device="cuda")),
            _across_mean(x, y, ones[:, None]),
        )
    assert {result.device.type for result in results} == {"cuda"}


def recipe_of(kind, folder):
    """An extractor with weights of one seed, and the number of images that a CPU can take."""
    torch.manual_seed(0)
    if kind in ("small", "resnet"):
        made = {"image_channels": 3, "image_size": 16, "num_classes": 10}
        net = SmallClassifier(**made) if kind == "small" else ResNet32(**made)
        return features.ClassifierRecipe(save_classifier(net), "", (*range(9, -1, -1),)), 300
    file = str(folder / "weights.pth")
    if kind == "inception":
        pytest.importorskip("torch_fidelity")
        torch.save(random_inception().state_dict(), file)
        return find_inception(file, allow=True), 4
    state = {name: 0.03 * torch.randn(shape) for name, shape in dinov2_shapes(384, 2).items()}
    torch.save(state, file)
    return find_dinov2(file, allow=True), 4


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["small", "resnet", "inception", "dinov2"])
def test_features_are_the_cpus_and_nobody_waits_for_them(kind, allowed, tmp_path):
    recipe, n = recipe_of(kind, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 16, 16), np.uint8)
    work = Extraction(SimpleNamespace(read=lambda numbers: pixels[numbers]), recipe)
    found, expected = (work(torch.device(d))((0, n)) for d in (DEVICE, "cpu"))
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-4)
    extractor, x = recipe.load(DEVICE), torch.from_numpy(pixels).to(DEVICE)
    extractor(x)
    if ON_GPU:
        torch.cuda.set_sync_debug_mode("error")
    try:
        extractor(x)
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")


class Looks(TorchDispatchMode):
    """Notes the layout of what is convolved, and what a GPU's host would wait with."""

    def __init__(self):
        super().__init__()
        self.layouts, self.waits = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten.convolution.default:
            self.layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
        moves = func is aten._to_copy.default and args[0].device != kwargs.get("device")
        if moves and kwargs.get("device") and not kwargs.get("non_blocking"):
            self.waits.append(func)
        if func is aten.index.Tensor and any(i.is_cpu for i in args[1] if i is not None):
            self.waits.append(func)
        return func(*args, **kwargs)


def extractors():
    """One of each kind, their weights on a device of the default kind."""
    device = torch.device("cuda")
    small = SmallClassifier(image_channels=3, image_size=16, num_classes=4)
    yield features._ClassifierExtractor(small, "", places=torch.tensor([2, 0, 1, 3]))
    resnet = ResNet32(image_channels=3, image_size=16, num_classes=4)
    yield features._ClassifierExtractor(resnet, "")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1))
    head = torch.empty(1008, 16)
    for rule in get_args(Resize):
        yield _InceptionExtractor(nn.Sequential(net, nn.Flatten()), head, device, rule, "")
    state = {name: torch.empty(shape) for name, shape in dinov2_shapes(64, 1).items()}
    three = torch.empty(3, 1, 1), torch.empty(3, 1, 1)
    yield _DinoExtractor(state, device, "bicubic", "", *three)


def test_extractors_wait_for_nothing_and_convolve_in_channels_last():
    """On tensors that are CUDA's in name only, as bytes that are there already."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        for extractor in extractors():
            x = torch.empty(5, 3, 16, 16, dtype=torch.uint8)
            with Looks() as looks:
                found = extractor(x)
            assert not looks.waits, type(extractor)
            assert found.pool.is_cuda and found.pool.dtype == torch.float32
            # A DINOv2 has one convolution, whose windows do not overlap.
            assert all(looks.layouts) or isinstance(extractor, _DinoExtractor)
