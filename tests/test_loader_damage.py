"""What the loader does with shards that are damaged while a run reads them."""

import shutil

import numpy as np
import pytest
import torch
from loader_tools import (
    BATCH,
    SHARD,
    N,
    damage,
    load,
    open_images,
    open_resampled,
    shard_path,
    write_digits,
)

from cbdm_scale.data.index import open_index
from cbdm_scale.data.shards import _LocalFile


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


def bad_rows(root, kind):
    """Damage open shards in one way; the rows that cannot be read any more."""
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


@pytest.mark.parametrize("num_streams", [None, 3])
@pytest.mark.parametrize("kind", list(REASONS))
def test_a_bad_sample_is_named_and_replaced_and_nothing_else_moves(
    made, root, kind, num_streams
):
    whole = open_images(made, num_streams=num_streams)
    images = open_images(root, num_streams=num_streams)
    bad = bad_rows(root, kind)
    steps = 3 * N // BATCH  # three epochs
    for before, after in zip(load(whole, steps), load(images, steps), strict=True):
        rows = whole.plan.rows(before.sample_ids.numpy())
        hit = np.flatnonzero(np.isin(rows, list(bad)))

        # Named, counted, with the class that lost an image.
        found = {s.sample_id: s for s in after.substitutions}
        assert sorted(found) == before.sample_ids[hit].tolist()
        for place in hit:
            substitution = found[int(before.sample_ids[place])]
            assert substitution.label == int(before.y[place])
            assert f"sample {before.keys[place]} of train/" in substitution.reason
            assert REASONS[kind] in substitution.reason

        # Replaced by the next readable element of its stream.
        assert torch.equal(after.sample_ids, before.sample_ids)
        for place in hit:
            successors = whole.plan.successors(int(before.sample_ids[place]))
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


def test_a_resampled_image_is_replaced_by_one_of_its_class(made, root):
    """The classes of a batch stay what the plan says, in this process and in another."""
    whole, images = open_resampled(made), open_resampled(root)
    bad = bad_rows(root, "missing shard")
    for processes in (0, 1):
        before, after = (load(i, 8, num_workers=processes) for i in (whole, images))
        hit = 0
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a.y, b.y) and torch.equal(a.sample_ids, b.sample_ids)
            rows = whole.plan.rows(a.sample_ids.numpy())
            lost = np.isin(rows, list(bad))
            assert [s.sample_id for s in b.substitutions] == a.sample_ids[lost].tolist()
            assert all(
                (x == y) != gone for x, y, gone in zip(a.keys, b.keys, lost, strict=True)
            )
            hit += lost.sum()
        assert hit > 20


def test_substitutions_are_the_same_for_every_number_of_workers(root):
    images = open_images(root)
    shard_path(root, 2).unlink()  # in mid-run: at the start it would be an error
    (alone,) = load(images, 1)
    parts = [load(images, 1, rank=r, world_size=4)[0] for r in range(4)]
    found = [s for part in parts for s in part.substitutions]
    assert sorted(found, key=lambda s: s.sample_id) == list(alone.substitutions)
    assert len(found) > 0


def test_an_error_that_proves_nothing_stops_the_run(root, monkeypatch):
    """A server that is away for one image is no damaged sample: nothing may be replaced."""
    images, real = open_images(root), _LocalFile.read
    gone = int(images.reader.index.offsets[3])

    def fails_for_one(self, at, length):
        if at == gone:
            raise OSError("stale handle")
        return real(self, at, length)

    monkeypatch.setattr(_LocalFile, "read", fails_for_one)
    with pytest.raises(OSError, match="cannot read sample digits-.* stale handle"):
        load(images, 3)


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
    images = open_images(root, num_streams=num_streams)
    for shard in range(N // SHARD):
        shard_path(root, shard).unlink()
    with pytest.raises(ValueError, match="no readable image is left .*prepare") as caught:
        load(images, 1)
    assert f"data.root ({root})" in str(caught.value)
