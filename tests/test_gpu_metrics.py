"""On a GPU the metrics are the CPU's, to the bounds of docs/evaluation.md."""

import pytest
import torch
from feature_tools import skewed

from cbdm_scale.metrics.fid import fid
from cbdm_scale.metrics.kid import kid
from cbdm_scale.metrics.memorisation import memorisation
from cbdm_scale.metrics.prd import prd
from cbdm_scale.metrics.precision_recall import manifold_scores

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is there"),
]

X, Y = skewed(0, 5000, 64), skewed(1, 4000, 64) + 0.2


@pytest.fixture(params=["ieee", "tf32"], autouse=True)
def allowed(request):
    """What others allow outside changes nothing."""
    product = torch.backends.cuda.matmul
    before, product.fp32_precision = product.fp32_precision, request.param
    yield
    product.fp32_precision = before


def test_neighbours_are_the_cpus():
    assert manifold_scores(X.cuda(), Y.cuda()) == manifold_scores(X, Y)
    y = torch.zeros(len(X), dtype=torch.int64)
    here, there = (
        memorisation(x.to(d), y, q.to(d), y[: len(Y)], [len(X)])
        for x, q, d in ((X, Y, "cpu"), (X, Y, "cuda"))
    )
    assert torch.equal(here.nearest, there.nearest)


def test_distances_are_the_cpus():
    assert fid(X.cuda(), Y.cuda()) == pytest.approx(fid(X, Y), rel=1e-6)
    assert fid(X.cuda(), Y[:9].cuda()) == pytest.approx(fid(X, Y[:9]), rel=1e-6)
    assert fid(X[:9].cuda(), Y.cuda()) == pytest.approx(fid(X[:9], Y), rel=1e-6)
    assert kid(X.cuda(), Y.cuda()) == pytest.approx(kid(X, Y), rel=1e-4)


def test_clusters_are_nearly_the_cpus():
    here, there = prd(X, Y, 3, num_runs=2), prd(X.cuda(), Y.cuda(), 3, num_runs=2)
    assert there.f8 == pytest.approx(here.f8, abs=0.01)
    assert there.f_eighth == pytest.approx(here.f_eighth, abs=0.01)


def test_features_that_are_not_finite_are_named():
    broken = X.clone()
    broken[7, 3] = torch.inf
    with pytest.raises(ValueError, match="non-finite"):
        fid(broken.cuda(), Y.cuda())
