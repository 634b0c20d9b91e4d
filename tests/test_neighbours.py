import pytest
import torch
from feature_tools import normal, skewed
from sklearn.neighbors import NearestNeighbors

from cbdm_scale.metrics import neighbours
from cbdm_scale.metrics.neighbours import nearest, within

SCREENS = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True, params=["cpu", "gpu"])
def small_blocks(monkeypatch, request):
    """Many blocks, of which the last is not full, from few images: square ones, and the wide
    ones of a GPU, which hold several images and themselves."""
    monkeypatch.setattr(neighbours, "BLOCK", 192)
    if request.param == "gpu":
        monkeypatch.setattr(neighbours, "GPU_COLUMNS", 256)
        monkeypatch.setattr(neighbours, "GPU_PAIRS", 100)
        monkeypatch.setattr(neighbours, "_on_gpu", lambda x: True)


def test_products_are_ieees_whatever_is_allowed_outside():
    """The bound on their error is float32's: TF32 would give other neighbours."""
    seen = set()

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (torch.Tensor.matmul, torch.linalg.vecdot, torch.Tensor.__matmul__):
                seen.add((function.__name__, torch.backends.cuda.matmul.fp32_precision))
            return function(*args, **(kwargs or {}))

    x = normal(0, 300, 8)
    product = torch.backends.cuda.matmul
    before, product.fp32_precision = product.fp32_precision, "tf32"
    try:
        with Watched():
            radius = nearest(x, k=3).distance[:, -1]
            list(within(x, x, radius, radius))
        assert product.fp32_precision == "tf32"
    finally:
        product.fp32_precision = before
    assert {precision for _, precision in seen} == {"ieee"} and len(seen) == 2


def by_cdist(queries, points, k, alone):
    distances = torch.cdist(
        queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    if alone:
        distances.fill_diagonal_(torch.inf)
    return distances.topk(k, largest=False)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("make", [normal, skewed])
@pytest.mark.parametrize("alone", [True, False])
def test_neighbours_are_those_of_the_full_matrix(screen, make, alone):
    points = make(0, 500, 40)
    queries = points if alone else make(1, 430, 40)
    found = nearest(queries, None if alone else points, k=5, screen=screen)
    expected = by_cdist(queries, points, 5, alone)
    assert torch.equal(found.index, expected.indices)
    torch.testing.assert_close(found.distance, expected.values, rtol=1e-6, atol=0)


def test_neighbours_are_those_of_scikit_learn():
    x = skewed(0, 300, 16)
    known = NearestNeighbors(n_neighbors=4).fit(x.double().numpy())
    distances, index = known.kneighbors()  # of the points themselves, without each itself
    found = nearest(x, k=4)
    assert torch.equal(found.index, torch.from_numpy(index))
    torch.testing.assert_close(found.distance, torch.from_numpy(distances), rtol=1e-6, atol=0)


@pytest.mark.parametrize("screen", SCREENS)
def test_copies_are_found_at_distance_zero(screen):
    x = skewed(0, 250, 12)
    x[200:] = x[:50]
    found = nearest(x, k=1, screen=screen)
    assert (found.distance[200:] == 0).all() and (found.distance[:50] == 0).all()
    assert torch.equal(found.index[200:, 0], torch.arange(50))
    assert (found.distance[50:200] > 0).all()


@pytest.mark.parametrize("screen", SCREENS)
def test_rows_that_the_screen_leaves_open_are_searched_again(screen):
    """A cluster so tight that bfloat16 cannot order it, with an outlier that widens bounds."""
    x = torch.cat([1e-3 * normal(0, 300, 8) + 1, normal(1, 5, 8) * 100])
    found = nearest(x, k=3, screen=screen)
    expected = by_cdist(x, x, 3, alone=True)
    torch.testing.assert_close(found.distance, expected.values, rtol=1e-4, atol=0)
    others = nearest(x[:40], x[40:], k=3, screen=screen)
    expected = by_cdist(x[:40], x[40:], 3, alone=False)
    torch.testing.assert_close(others.distance, expected.values, rtol=1e-4, atol=0)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])  # few pairs, some, all
def test_pairs_within_are_those_of_the_full_matrix(screen, scale):
    a, b = skewed(0, 400, 20), skewed(1, 350, 20)
    distances = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    middle = distances.median() * scale
    r_a, r_b = middle * (1 + normal(2, 400, 1)[:, 0].abs()), middle * torch.ones(350)
    seen_a, seen_b = torch.zeros(400, 350).int(), torch.zeros(400, 350).int()
    for in_a, in_b in within(a, b, r_a, r_b, screen=screen):
        seen_a[in_a] += 1
        seen_b[in_b] += 1
    assert torch.equal(seen_a, (distances <= r_a[:, None]).int())
    assert torch.equal(seen_b, (distances <= r_b).int())


def test_the_bound_of_the_screen_holds():
    a, b = skewed(0, 150, 64), skewed(1, 150, 64)
    exact = torch.cdist(a.double(), b.double()).square()
    for screen in SCREENS:
        first, second = neighbours._sides(a, b, screen)
        (_, _, screened), *_ = neighbours._blocks(first, second, upper=False)
        wrong = (screened - exact).abs()
        for j in range(0, 150, 10):
            assert (wrong[:, j] <= first.error(second, exact[:, j])).all()
        assert wrong.max() > 0


def test_the_bound_knows_that_a_bfloat16_product_is_rounded_once_more():
    """Whole numbers below 256 are exact in bfloat16, their products are not."""
    x = (normal(0, 60, 2) * 50).round().clamp(-255, 255)
    x = torch.cat([x, -x])  # the mean is 0
    exact = torch.cdist(x.double(), x.double()).square()
    side, same = neighbours._sides(x, x, torch.bfloat16)
    (_, _, screened), *_ = neighbours._blocks(side, same, upper=False)
    wrong = (screened - exact).abs()
    assert wrong.max() > 10
    assert all((wrong[:, j] <= side.error(same, exact[:, j])).all() for j in range(120))


def test_what_cannot_be_searched_is_refused():
    x = normal(0, 5, 3)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.4 for so many images, got 5"):
        nearest(x, k=5)
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(2, 4\)"):
        nearest(x, normal(0, 2, 4), k=1)
    with pytest.raises(ValueError, match="non-finite"):
        nearest(torch.full((3, 2), torch.nan), k=1)
