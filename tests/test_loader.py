"""Batches of real shards: for any number of workers, from any step, whatever is damaged."""

import dataclasses
import pickle
import shutil
import threading
from itertools import islice

import numpy as np
import pytest
import torch

from cbdm_scale import draws
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import DataConfig, PlannedImages, load_batches
from cbdm_scale.data.plan import SamplePlan, slots
from cbdm_scale.data.shards import ShardReader, _LocalFile
from data_prep.digits import read_digits_lt
from data_prep.shards import write_dataset

N, SHARD, SEED = 64, 16, 11
BATCH = 24  # of which 64 is no multiple: every third step crosses an epoch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sixty-four real digits in four shards, every class among them."""
    root = tmp_path_factory.mktemp("loader")
    (root / "digits_lt").mkdir()
    source = read_digits_lt()
    few = source.splits["eval"].take(np.arange(N))
    source = dataclasses.replace(source, splits={"train": few})
    write_dataset(
        source, root / "digits_lt", samples_per_shard=SHARD, seed=0, say=lambda line: None
    )
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def open_images(root, *, flip=False, num_streams=None, seed=SEED):
    index = open_index(str(root), "digits_lt", "train")
    reader = ShardReader(str(root), "digits_lt", index, pauses=())
    plan = SamplePlan(index.shard_sizes.tolist(), seed, num_streams=num_streams)
    return PlannedImages(reader, plan, flip=flip, seed=seed)


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


def assert_same(a, b):
    assert torch.equal(a.x0, b.x0) and torch.equal(a.y, b.y)
    assert torch.equal(a.images, b.images)
    assert (a.keys, a.substitutions) == (b.keys, b.substitutions)


def planned_keys(images, numbers):
    return [images.reader.index.key(row) for row in images.plan.rows(np.array(numbers))]


def shard_path(root, shard):
    return root / "digits_lt" / f"train/{shard:06d}.tar"


def damage(root, row):
    """Flip one bit of an image's bytes."""
    index = open_index(str(root), "digits_lt", "train")
    path = root / "digits_lt" / index.shard_name(index.shard_of[row])
    raw = bytearray(path.read_bytes())
    raw[index.offsets[row] + 40] ^= 1
    path.write_bytes(raw)


def bad_rows(root, kind):
    """Damage the shards in one way; the rows that cannot be read any more."""
    match kind:
        case "damaged bytes":
            for row in (3, 20, 21):
                damage(root, row)
            return {3, 20, 21}
        case "missing shard":
            shard_path(root, 2).unlink()
            return set(range(2 * SHARD, 3 * SHARD))
        case "cut shard":
            index = open_index(str(root), "digits_lt", "train")
            path = shard_path(root, 1)
            path.write_bytes(path.read_bytes()[: int(index.offsets[SHARD + 10]) + 5])
            return set(range(SHARD + 10, 2 * SHARD))
    raise AssertionError(kind)


REASONS = {
    "damaged bytes": "its bytes do not have the index's crc32",
    "missing shard": "the shard is missing",
    "cut shard": "the shard ends at byte",
}


# ----------------------------------------------------------------------------
# The planned images.


def test_batches_hold_the_planned_images_and_labels(made):
    source = read_digits_lt().splits["eval"]
    where = {key: i for i, key in enumerate(source.keys)}
    images, seen = open_images(made), []
    for step, batch in enumerate(load(images, 8)):
        numbers = range(step * BATCH, (step + 1) * BATCH)
        assert batch.images.tolist() == list(numbers)
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
            assert torch.equal(part.images, whole.images[rank::world_size])
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
    for a, b in zip(load(images, 5, prefetch=1), load(images, 5, prefetch=7), strict=True):
        assert_same(a, b)


def test_processes_read_the_same_batches_and_report_the_same_damage(root):
    """One and two processes against the thread, over a copy with a damaged image."""
    damage(root, 20)
    images = open_images(root, flip=True, num_streams=3)
    expected = load(images, 4)
    assert sum(len(batch.substitutions) for batch in expected) > 0
    for processes in (1, 2):
        found = load(images, 4, processes=processes, prefetch=2)
        for a, b in zip(expected, found, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("num_streams", [None, 3])
def test_what_is_sent_to_a_process_is_small_and_reads_the_same(made, num_streams):
    images = open_images(made, flip=True, num_streams=num_streams)
    numbers = slots(0, BATCH, 0, 1)
    before = images[numbers]  # its caches are full now
    sent = pickle.dumps(images)
    assert len(sent) < 2000
    assert_same(pickle.loads(sent)[numbers], before)


def test_no_thread_survives_its_batches(made):
    before = threading.active_count()
    load(open_images(made), 2)
    assert threading.active_count() == before


# ----------------------------------------------------------------------------
# Flips.


def test_flips_follow_the_image(made):
    numbers = torch.arange(500, 500 + 4 * N)
    plain, flipped = open_images(made)[numbers], open_images(made, flip=True)[numbers]
    mirrored = draws.uniform(SEED, "flip", numbers).squeeze(1) < 0.5
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


# ----------------------------------------------------------------------------
# Damage.


@pytest.mark.parametrize("num_streams", [None, 3])
@pytest.mark.parametrize("kind", list(REASONS))
def test_a_bad_sample_is_named_and_replaced_and_nothing_else_moves(
    made, root, kind, num_streams
):
    whole = open_images(made, num_streams=num_streams)
    bad = bad_rows(root, kind)
    images = open_images(root, num_streams=num_streams)
    steps = 3 * N // BATCH  # three epochs
    for before, after in zip(load(whole, steps), load(images, steps), strict=True):
        rows = whole.plan.rows(before.images.numpy())
        hit = np.flatnonzero(np.isin(rows, list(bad)))

        # Named, counted, with the class that lost an image.
        found = {s.image: s for s in after.substitutions}
        assert sorted(found) == before.images[hit].tolist()
        for place in hit:
            substitution = found[int(before.images[place])]
            assert substitution.label == int(before.y[place])
            assert f"sample {before.keys[place]} of train/" in substitution.reason
            assert REASONS[kind] in substitution.reason

        # Replaced by the next readable element of its stream.
        assert torch.equal(after.images, before.images)
        for place in hit:
            successors = whole.plan.successors(int(before.images[place]))
            row = next(row for row in successors if row not in bad)
            assert after.keys[place] == whole.reader.index.key(row)
            assert int(after.y[place]) == whole.reader.index.labels[row]
            pixels = torch.from_numpy(whole.reader.load(row))
            torch.testing.assert_close(after.x0[place], pixels / 127.5 - 1)

        # And nothing else moves.
        rest = np.delete(np.arange(BATCH), hit)
        assert torch.equal(after.x0[rest], before.x0[rest])
        assert [after.keys[i] for i in rest] == [before.keys[i] for i in rest]


def test_every_sample_is_still_planned_once_and_the_next_one_is_seen_twice(root):
    damage(root, 3)
    images = open_images(root)
    batch = images[torch.arange(N)]
    rows, counts = np.unique(batch.keys, return_counts=True)
    assert len(rows) == N - 1
    assert sorted(counts) == [1] * (N - 2) + [2]
    assert len(batch.substitutions) == 1


def test_substitutions_are_the_same_for_every_number_of_workers(root):
    shard_path(root, 2).unlink()
    (alone,) = load(open_images(root), 1)
    parts = [load(open_images(root), 1, rank=r, world_size=4)[0] for r in range(4)]
    found = [s for part in parts for s in part.substitutions]
    assert sorted(found, key=lambda s: s.image) == list(alone.substitutions)
    assert len(found) > 0


def test_an_error_that_proves_nothing_stops_the_run(root, monkeypatch):
    """A server that is away is no damaged sample: nothing may be replaced."""

    def fails(self, offset, length):
        raise OSError("stale handle")

    monkeypatch.setattr(_LocalFile, "read", fails)
    with pytest.raises(OSError, match="cannot read sample digits-.* stale handle"):
        load(open_images(root), 1)


def test_an_error_that_proves_nothing_stops_a_stand_in_as_well(root, monkeypatch):
    damage(root, 3)
    images = open_images(root)
    offset, real = int(images.reader.index.offsets[3]), _LocalFile.read

    def reads_the_damaged_only(self, at, length):
        if at != offset:
            raise OSError("stale handle")
        return real(self, at, length)

    monkeypatch.setattr(_LocalFile, "read", reads_the_damaged_only)
    (image,) = (g for g in range(N) if images.plan.rows(np.array([g]))[0] == 3)
    with pytest.raises(OSError, match="stale handle"):
        images[torch.tensor([image])]


@pytest.mark.parametrize("num_streams", [None, 3])
def test_a_data_set_without_a_readable_image_says_so(root, num_streams):
    for shard in range(N // SHARD):
        shard_path(root, shard).unlink()
    with pytest.raises(ValueError, match="no readable image is left .*data_prep") as caught:
        load(open_images(root, num_streams=num_streams), 1)
    assert f"data.root ({root})" in str(caught.value)


# ----------------------------------------------------------------------------
# Options.


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("processes", -1, "Try 0"),
        ("prefetch", 0, "Try 4"),
        ("max_bad", -0.1, "Try 0.01"),
        ("max_bad", 1.1, "Try 0.01"),
        ("max_bad", float("nan"), "Try 0.01"),
    ],
)
def test_bad_options_are_named_with_value_and_way_out(option, value, way_out):
    with pytest.raises(ValueError) as caught:
        DataConfig(**{option: value})
    message = str(caught.value)
    assert f"data.{option}" in message and f"got {value}" in message and way_out in message
