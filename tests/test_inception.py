"""Inception-V3 from both kinds of file, against torch-fidelity's own way through it."""

import os
import warnings

import pytest
import torch
from extractor_tools import load_extractor, random_inception
from sklearn.datasets import load_sample_images
from torch import nn

from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.metrics.extractors import find_extractor
from cbdm_scale.metrics.inception import VARIABLE


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return random_inception()


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(theirs.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def extract(file):
    return load_extractor("inception", "", weights=file, allow_weights=True, resize="tf1")


def images(n=2, channels=3):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 16, 16), generator=g, dtype=torch.uint8)


def test_features_and_scores_are_torch_fidelitys(theirs, extract):
    pool, scores = theirs(images())
    found = extract(images())
    torch.testing.assert_close(found.pool, pool, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.imagenet, scores, rtol=1e-4, atol=1e-6)
    assert found.logits is None, "ImageNet's classes are not the data set's"


def test_bf16_around_it_and_floats_into_it_change_nothing(extract):
    expected = extract(images(1)).pool
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extract(to_model_range(images(1))).pool
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_grey_images_are_three_equal_channels(extract):
    grey = images(1, channels=1)
    assert torch.equal(extract(grey).pool, extract(grey.expand(-1, 3, -1, -1)).pool)


class Script(nn.Module):
    """Gives 2,048 numbers of an image, as the TorchScript file does."""

    def __init__(self, dim: int = 2048):
        super().__init__()
        self.last = nn.Linear(3, dim)

    def forward(self, x):
        return self.last(x.mean(dim=(2, 3)))


def save_script(path, dim=2048):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        torch.jit.script(Script(dim)).save(str(path))
    return str(path)


def test_a_torchscript_file_has_features_and_no_classes(tmp_path):
    path = save_script(tmp_path / "script.pt")
    recipe = find_extractor("inception", "", weights=path, allow_weights=True)
    found = recipe.load("cpu")(images())
    assert found.pool.shape == (2, 2048) and found.imagenet is None


def test_a_torchscript_file_that_nobody_published_is_not_run(tmp_path):
    path = save_script(tmp_path / "script.pt")
    with pytest.raises(ValueError, match="script.pt.* is not a published file"):
        find_extractor("inception", "", weights=path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: save_script(path, dim=64), "it gives 64 features"),
        (lambda path: torch.save({"fc.bias": torch.zeros(10)}, path), "Error.* in loading"),
        (lambda path: path.write_bytes(b"<html>"), "."),
    ],
)
def test_another_file_is_named_with_the_published_ones(write, reason, tmp_path):
    path = tmp_path / "other.pt"
    write(path)
    recipe = find_extractor("inception", "", weights=str(path), allow_weights=True)
    with pytest.raises(
        ValueError, match=rf"other.pt does not hold the Inc.*{reason}.*default_1.pt"
    ):
        recipe.load("cpu")


def test_a_state_dict_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"fc.bias": os.getcwd}, path)
    recipe = find_extractor("inception", "", weights=str(path), allow_weights=True)
    with pytest.raises(ValueError, match="evil.pth does not hold"):
        recipe.load("cpu")


@pytest.mark.data
def test_to_the_published_network_a_mirror_image_is_nearer_than_another_photo():
    path = os.environ.get(VARIABLE, "")
    if not path:
        pytest.skip(f"{VARIABLE} does not name the published weights")
    extractor = load_extractor("inception", "", weights=path)
    photos = [torch.from_numpy(p[:420:14, :630:21].copy()) for p in load_sample_images().images]
    x = torch.stack(photos).permute(0, 3, 1, 2)  # (2, 3, 30, 30)
    pool, mirrored = extractor(x).pool, extractor(x.flip(3)).pool
    assert pool.shape == (2, 2048) and bool((pool >= 0).all()), "means of rectified maps"
    assert (pool - mirrored).norm(dim=1).max() < (pool[0] - pool[1]).norm()
