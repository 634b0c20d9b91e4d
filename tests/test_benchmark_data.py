"""The loaders that the data benchmark compares do the same work."""

from collections import Counter
from itertools import islice

import pytest
import torch

from benchmarks import loaders
from benchmarks.loaders import BATCH, LOADERS, write_data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(loaders, "NUM_IMAGES", 2 * BATCH)
    write_data(tmp_path, 8)
    return tmp_path


def looks(batches):
    """An epoch's images, each told from its mirror image by nobody, with their labels."""
    found = Counter()
    for x, y in islice(batches, 2):
        assert x.shape == (BATCH, 3, 8, 8) and x.dtype == torch.float32
        for image, label in zip(x, y.tolist(), strict=True):
            both = image, image.flip(-1)
            levels = sorted(
                ((one + 1) * 127.5).round().byte().numpy().tobytes() for one in both
            )
            found[levels[0], label] += 1
    return found


def test_every_loader_delivers_the_same_epoch(folder):
    expected = looks(LOADERS["ours, first epoch"](folder, 0))
    assert len(expected) == 2 * BATCH
    for name in "ours, later epochs", "WebDataset", "ImageFolder":
        assert looks(LOADERS[name](folder, 0)) == expected, name
