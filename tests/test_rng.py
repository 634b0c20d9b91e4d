"""Random numbers that follow the image: the generator's known answers and its independences."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.rng import (
    bits,
    first_uniform,
    make_key,
    normal,
    permutation,
    philox,
    uniform,
)

ONES = 0xFFFFFFFF
IMAGES = torch.arange(20_000)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        pytest.param(
            (0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8), id="zeros"
        ),
        pytest.param(
            (ONES, ONES, ONES, ONES),
            (ONES, ONES),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
            id="ones",
        ),
        pytest.param(
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
            id="pi",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, expected):
    """kat_vectors of Random123, philox4x32 with 10 rounds."""
    words, key = np.array([counter]).T.astype(np.uint64), np.array([key]).T.astype(np.uint64)
    assert [word.tolist() for word in philox(words, key)] == [[word] for word in expected]
    many = np.stack(philox(np.repeat(words, 3, 1), key))
    assert many.T.tolist() == [list(expected)] * 3


DRAWS = [
    pytest.param(lambda images, **k: bits(7, "noise", images, 9, **k), id="bits"),
    pytest.param(lambda images, **k: uniform(7, "noise", images, 9, **k), id="uniform"),
    pytest.param(lambda images, **k: normal(7, "noise", images, 9, **k), id="normal"),
    pytest.param(lambda images, **k: normal(7, "noise", images, 3 * 32 * 32, **k), id="image"),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_an_image_s_numbers_do_not_depend_on_its_batch(draw):
    images = torch.arange(50) * 1_000_003
    whole = draw(images)
    for size in (1, 3, 7):
        parts = torch.cat([draw(part) for part in images.split(size)])
        assert torch.equal(parts, whole)  # bit for bit
    order = torch.randperm(50)
    assert torch.equal(draw(images[order]), whole[order])
    assert torch.equal(draw(torch.stack([images, images], 1)[:, 1]), whole)  # strided input


@pytest.mark.parametrize("draw", [bits, uniform, normal])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_further_numbers_of_an_image_leave_the_first_as_they_are(draw, count):
    images = torch.arange(10)
    assert draw(0, "x", images, count).shape == (10, count)
    assert torch.equal(draw(0, "x", images, count), draw(0, "x", images, 11)[:, :count])


@pytest.mark.parametrize("count", [1, 4])
def test_an_empty_batch_draws_nothing(count):
    assert normal(0, "x", torch.arange(0), count).shape == (0, count)


def correlation(a: Tensor, b: Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((0, "noise", IMAGES, 1, 0), (1, "noise", IMAGES, 1, 0), id="seeds"),
        pytest.param((0, "noise", IMAGES, 1, 0), (0, "step", IMAGES, 1, 0), id="purposes"),
        pytest.param((0, "noise", IMAGES, 1, 0), (0, "noise", IMAGES, 1, 1), id="streams"),
        pytest.param((0, "noise", IMAGES, 1, 0), (0, "noise", IMAGES + 1, 1, 0), id="images"),
        pytest.param(
            (0, "noise", IMAGES, 1, 0), (0, "noise", IMAGES + 2**32, 1, 0), id="high words"
        ),
    ],
)
def test_other_seeds_purposes_streams_and_images_draw_independently(first, second):
    assert abs(correlation(uniform(*first), uniform(*second))) < 4 / math.sqrt(len(IMAGES))
    assert (bits(*first) == bits(*second)).double().mean() < 1e-3
    assert torch.equal(bits(*first), bits(*first))


def test_the_numbers_of_one_image_are_independent():
    draws = normal(3, "noise", IMAGES, 6)
    bound = 4 / math.sqrt(len(IMAGES))
    values = torch.corrcoef(draws.T.double()) - torch.eye(6)
    squares = torch.corrcoef(draws.T.double().square()) - torch.eye(6)
    assert max(values.abs().max(), squares.abs().max()) < bound


def test_uniform_numbers_fill_the_open_interval_evenly():
    u = uniform(0, "x", IMAGES, 4)
    assert u.dtype == torch.float64
    assert 0 < u.min() < 1e-3 and 1 - 1e-3 < u.max() < 1
    counts = torch.histc(u.float(), bins=16, min=0, max=1)
    expected = u.numel() / 16
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()  # 15 degrees of freedom
    assert chi_squared < 50


def test_normal_numbers_have_the_moments_and_tails_of_a_gaussian():
    z = normal(0, "noise", IMAGES, 10)
    assert z.dtype == torch.float32
    assert z.abs().max() < math.sqrt(2 * math.log(2**33))  # what the smallest word gives
    z, n = z.double(), z.numel()
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 4 * math.sqrt(variance / n)
    for bound in (0.5, 1, 2, 3):
        share = math.erf(bound / math.sqrt(2))
        found = (z.abs() < bound).double().mean().item()
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_permutation_holds_every_number_once_and_follows_its_key():
    first = permutation(0, "epoch 0", 1000)
    assert sorted(first.tolist()) == list(range(1000))
    assert torch.equal(first, permutation(0, "epoch 0", 1000))
    others = permutation(0, "epoch 1", 1000), permutation(1, "epoch 0", 1000)
    assert all((first == other).sum() < 10 for other in others)
    assert permutation(0, "x", 0).shape == (0,)


def test_permutations_are_uniform_over_all_orders():
    orders = [tuple(permutation(0, f"epoch {i}", 3).tolist()) for i in range(600)]
    counts = torch.tensor([orders.count(order) for order in sorted(set(orders))])
    assert len(counts) == 6
    assert ((counts - 100.0) ** 2 / 100).sum() < 25  # 5 degrees of freedom


def test_the_first_numbers_of_many_purposes_are_those_of_single_calls():
    purposes, images = ("timestep", "label drop", "x"), torch.arange(2**33, 2**33 + 70)
    keys = np.array([make_key(3, purpose) for purpose in purposes], np.uint64).T
    numbers = np.stack([images.numpy()] * 2 + [images.numpy() // 7])
    expected = [uniform(3, "timestep", images), uniform(3, "label drop", images)]
    expected.append(uniform(3, "x", images // 7))
    found = first_uniform(keys, numbers)
    assert np.array_equal(found, torch.cat(expected, 1).T.numpy())


def test_another_device_has_the_words_of_the_host():
    images = torch.arange(5) * 10**10
    key = make_key(3, "noise")
    words = torch.stack(torch.broadcast_tensors(*rng._device_words(key, images, 6, 2)), -1)
    assert torch.equal(words.flatten(1), bits(3, "noise", images, 24, stream=2))


@pytest.mark.parametrize("count", [1, 6, 1030])
def test_the_kernel_makes_the_normal_numbers_of_the_host(count):
    """Without a GPU in Triton's interpreter (conftest.py)."""
    rng_kernel = pytest.importorskip("cbdm_scale.diffusion.rng_kernel")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.tensor([10**10, 0, 2**40 + 3, 0, 7])[::2]
    found = rng_kernel.normal(make_key(3, "noise"), images.to(device), count, 2).cpu()
    expected = normal(3, "noise", images, count, stream=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert rng_kernel.normal((0, 0), images[:0].to(device), 5, 0).shape == (0, 5)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from cbdm_scale.diffusion import rng_kernel
types = {"out": "*fp32", "images": "*i64", "key": "u64", "stream": "u32", "count": "i32"}
blocks = {"BLOCKS": rng_kernel.BLOCKS}
source = ASTSource(rng_kernel._fill, types | {"BLOCKS": "constexpr"}, blocks)
made = compile(source, GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
assert made.asm["cubin"] and "approx" not in made.asm["ptx"]
"""


@pytest.mark.slow
def test_the_kernel_compiles_for_a_gpu_with_exact_functions():
    """Without one. The approximate logarithm would be far off near 1."""
    pytest.importorskip("triton")
    paths = {"TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = [sys.executable, "-c", COMPILE]
    done = subprocess.run(asked, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it can be built")
def test_without_a_kernel_a_warning_says_why():
    rng._kernel.cache_clear()
    with pytest.warns(UserWarning, match="noise is made by many small kernels"):
        assert rng._kernel() is None
    rng._kernel.cache_clear()
