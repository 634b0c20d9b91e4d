"""On a GPU the metrics are the CPU's, to the bounds of docs/evaluation.md."""

import pytest
import torch
from feature_tools import skewed
from gpu_tools import DEVICE, no_gpu
from torch._subclasses.fake_tensor import FakeTensorMode

from cbdm_scale.metrics import neighbours
from cbdm_scale.metrics.fid import fid, moments_of
from cbdm_scale.metrics.kid import _across_mean, _within_mean, kid
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.prd import kmeans, nearest_centre, prd
from cbdm_scale.metrics.precision_recall import manifold_scores

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
