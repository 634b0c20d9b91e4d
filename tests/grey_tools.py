"""A data root with cifar10_lt: four grey images a class, 32x32."""

import numpy as np
import pytest

from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset

CLASSES = 10


@pytest.fixture(scope="session")
def grey_root(tmp_path_factory):
    """A data root with cifar10_lt: four grey images a class, 32x32."""
    folder = tmp_path_factory.mktemp("root")
    labels = np.repeat(np.arange(CLASSES), 4)
    pixels = np.broadcast_to(labels[:, None, None, None].astype(np.uint8), (40, 32, 32, 3))
    split = Split.of_arrays(pixels.copy(), labels, "grey")
    source = Source(
        name="cifar10_lt",
        class_names=tuple(map(str, range(CLASSES))),
        image_size=32,
        channels=3,
        splits={"train": split, "eval": split},
        made="for a test",
        mirrors=True,
    )
    (folder / "cifar10_lt").mkdir()
    write_dataset(
        source,
        folder / "cifar10_lt",
        samples_per_shard=20,
        seed=0,
        log=lambda line: None,
    )
    return str(folder)
