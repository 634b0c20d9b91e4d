"""Batches of real shards: the same for any number of workers, from any step."""

import shutil
import threading

import numpy as np
import pytest
import torch
from loader_tools import BATCH, SEED, N, damage, load, open_images, write_digits
from process_tools import sent
from training_tools import make_inputs, on_device

from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import slots
from cbdm_scale.diffusion import rng
from data_prep.readers.digits import read_digits_lt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("loader")
    write_digits(root)
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def assert_same(a, b):
    assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y)
    assert torch.equal(a.sample_ids, b.sample_ids)
    assert (a.keys, a.substitutions) == (b.keys, b.substitutions)


def planned_keys(images, numbers):
    return [images.reader.index.key(row) for row in images.plan.rows(np.array(numbers))]


# ----------------------------------------------------------------------------
# The planned images.


def test_batches_hold_the_planned_images_and_labels(made):
    source = read_digits_lt().splits["eval"]
    where = {key: i for i, key in enumerate(source.keys)}
    images, seen = open_images(made), []
    for step, batch in enumerate(load(images, 8)):
        numbers = range(step * BATCH, (step + 1) * BATCH)
        assert batch.sample_ids.tolist() == list(numbers)
        assert list(batch.keys) == planned_keys(images, numbers)
        assert batch.substitutions == ()
        assert batch.x0.shape == (BATCH, 1, 8, 8) and batch.x0.dtype == torch.float32
        assert batch.y.dtype == torch.int64
        for x0, y, key in zip(batch.x0, batch.y, batch.keys, strict=True):
            pixels = torch.from_numpy(source.image(where[key]).transpose(2, 0, 1).copy())
            torch.testing.assert_close(x0, pixels / 127.5 - 1)
            assert int(y) == source.labels[where[key]]
        seen += batch.keys
    assert all(len(set(seen[e * N : (e + 1) * N])) == N for e in range(3))
    assert float(batch.x0.min()) == -1 and float(batch.x0.max()) == 1


@pytest.mark.parametrize("num_streams", [None, 3])
@pytest.mark.parametrize("world_size", [2, 3, 4, 6, 8])
def test_the_global_batches_are_the_same_for_every_number_of_workers(
    made, num_streams, world_size
):
    alone = load(open_images(made, flip=True, num_streams=num_streams), 4)
    ranks = [
        load(
            open_images(made, flip=True, num_streams=num_streams),
            4,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        for rank in range(world_size):
            part = ranks[rank][step]
            assert torch.equal(part.x0, whole.x0[rank::world_size])
            assert torch.equal(part.y, whole.y[rank::world_size])
            assert torch.equal(part.sample_ids, whole.sample_ids[rank::world_size])
            assert part.keys == whole.keys[rank::world_size]


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_restart_continues_as_if_nothing_had_happened(root, step):
    for row in (3, 20):
        damage(root, row)
    through = load(open_images(root, flip=True), 9)
    again = load(open_images(root, flip=True), 9 - step, start=step * BATCH)
    for a, b in zip(through[step:], again, strict=True):
        assert_same(a, b)
    assert any(batch.substitutions for batch in again)


def test_the_length_of_the_prefetch_changes_nothing(made):
    images = open_images(made, flip=True)
    for a, b in zip(
        load(images, 5, prefetch_factor=1), load(images, 5, prefetch_factor=7), strict=True
    ):
        assert_same(a, b)


def test_processes_read_the_same_batches_and_report_the_same_damage(root):
    """One and two processes against the thread, over a copy with a damaged image."""
    damage(root, 20)
    images = open_images(root, flip=True, num_streams=3)
    expected = load(images, 4)
    assert sum(len(batch.substitutions) for batch in expected) > 0
    for processes in (1, 2):
        found = load(images, 4, num_workers=processes, prefetch_factor=2)
        for a, b in zip(expected, found, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("num_streams", [None, 3])
def test_what_is_sent_to_a_process_is_small_and_reads_the_same(made, num_streams):
    images = open_images(made, flip=True, num_streams=num_streams)
    numbers = slots(0, BATCH, 0, 1)
    before = images[numbers]  # its caches are full now
    assert_same(sent(images, most=2000)[numbers], before)


def test_no_thread_survives_its_batches(made):
    before = threading.active_count()
    load(open_images(made), 2)
    assert threading.active_count() == before


# ----------------------------------------------------------------------------
# Flips.


def test_flips_follow_the_image(made):
    numbers = torch.arange(500, 500 + 4 * N)
    plain, flipped = open_images(made)[numbers], open_images(made, flip=True)[numbers]
    mirrored = rng.uniform(SEED, "flip", numbers).squeeze(1) < 0.5
    assert 0.4 < mirrored.double().mean() < 0.6
    assert torch.equal(flipped.x0[~mirrored], plain.x0[~mirrored])
    assert torch.equal(flipped.x0[mirrored], plain.x0[mirrored].flip(-1))
    assert not torch.equal(flipped.x0[mirrored], plain.x0[mirrored])
    few = numbers[torch.tensor([200, 3, 77])]  # in any company
    assert torch.equal(open_images(made, flip=True)[few].x0, flipped.x0[few - 500])


def test_an_image_is_flipped_in_some_epochs_and_not_in_others(made):
    """The flip belongs to the image of the run, not to the sample of the data set."""
    images = open_images(made, flip=True)
    looks = {}
    for batch in (images[torch.arange(e * N, (e + 1) * N)] for e in range(8)):
        for key, x0 in zip(batch.keys, batch.x0, strict=True):
            looks.setdefault(key, set()).add(x0.numpy().tobytes())
    assert sum(len(found) == 2 for found in looks.values()) > 0.9 * N
    assert max(len(found) for found in looks.values()) == 2


def test_images_are_bytes_until_they_are_on_the_device(made):
    """What is left to do there gives the bits of what the CPU would have done."""
    batch = open_images(made, flip=True)[torch.arange(N)]
    assert batch.x.dtype == torch.uint8 and batch.mirrored.any()
    source = read_digits_lt().splits["eval"]
    where = {key: i for i, key in enumerate(source.keys)}
    pixels = np.stack([source.image(where[key]) for key in batch.keys]).transpose(0, 3, 1, 2)
    pixels[batch.mirrored.numpy()] = pixels[batch.mirrored.numpy(), ..., ::-1]
    expected = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert batch.x0.numpy().tobytes() == expected.tobytes()
    (part,) = on_device(batch, make_inputs().draw)
    assert torch.equal(part.x0, batch.x0) and part.x0.stride() == batch.x0.stride()


def test_images_that_augmentation_has_changed_are_numbers(made):
    batch = open_images(made, flip=True, augment="diffaug")[torch.arange(N)]
    assert batch.x.dtype == torch.float32 and batch.mirrored is None
    assert torch.equal(batch.x0, batch.x)


# ----------------------------------------------------------------------------
# Options.


@pytest.mark.parametrize(
    ("option", "value", "default"),
    [
        ("num_workers", -1, 0),
        ("prefetch_factor", 0, 4),
        ("max_bad", -0.1, 0.01),
        ("max_bad", 1.1, 0.01),
        ("max_bad", float("nan"), 0.01),
    ],
)
def test_bad_options_are_named_with_value_and_way_out(option, value, default):
    with pytest.raises(ValueError) as caught:
        DataConfig(**{option: value})
    message = str(caught.value)
    way_out = f"Try --data.{option.replace('_', '-')} {default}"
    assert f"data.{option}" in message and f"got {value}" in message and way_out in message
