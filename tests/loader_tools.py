"""Sixty-four real digits in four shards, and batches of them."""

import dataclasses
from itertools import islice

import numpy as np

from cbdm_scale.data.augment import augmentation
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import PlannedImages, load_batches
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan
from cbdm_scale.data.resample import ResampledPlan
from cbdm_scale.data.shards import ShardReader
from data_prep.readers.digits import read_digits_lt
from data_prep.writing.shards import write_dataset

N, SHARD, SEED = 64, 16, 11
BATCH = 24  # of which 64 is no multiple: every third step crosses an epoch


def write_digits(root):
    """The first N digits, every class among them."""
    (root / "digits_lt").mkdir()
    source = read_digits_lt()
    few = source.splits["eval"].take(np.arange(N))
    source = dataclasses.replace(source, splits={"train": few})
    write_dataset(
        source, root / "digits_lt", samples_per_shard=SHARD, seed=0, log=lambda line: None
    )


def open_images(root, *, flip=False, augment="none", num_streams=None, seed=SEED, reader=None):
    if reader is None:
        index = open_index(str(root), "digits_lt", "train")
        reader = ShardReader(str(root), "digits_lt", index, pauses=())
    plan = SamplePlan(reader.index.shard_sizes.tolist(), seed, num_streams=num_streams)
    config = DataConfig(flip=flip, augment=augment)
    return PlannedImages(reader, plan, augmentation(config, seed))


def open_resampled(root, *, power=0.0, balanced=0.25):
    images = open_images(root)
    images.plan = ResampledPlan(images.reader.index, SEED, power, balanced)
    return images


def load(images, steps, *, start=0, rank=0, world_size=1, **options):
    batches = load_batches(
        images,
        DataConfig(**options),
        start=start,
        batch_size=BATCH,
        rank=rank,
        world_size=world_size,
    )
    try:
        return list(islice(batches, steps))
    finally:
        batches.close()


def shard_path(root, shard):
    return root / "digits_lt" / f"train/{shard:06d}.tar"


def damage(root, row):
    """Flip one bit of an image's bytes."""
    index = open_index(str(root), "digits_lt", "train")
    path = root / "digits_lt" / index.shard_name(index.shard_of[row])
    raw = bytearray(path.read_bytes())
    raw[index.offsets[row] + 40] ^= 1
    path.write_bytes(raw)
