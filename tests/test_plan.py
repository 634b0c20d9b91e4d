"""The promises of the sample plan, for any index, seed and position."""

import hashlib
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from process_tools import sent

from cbdm_scale.data.plan import MIX_ROWS, SamplePlan, slots
from cbdm_scale.diffusion import rng

WORLDS = 1, 2, 3, 4, 6, 8
BATCH = 24  # what all of them divide

indices = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
streams = st.one_of(st.none(), st.integers(1, 7))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=20)


def read(plan, start, stop):
    return plan.rows(np.arange(start, stop)).tolist()


def shard_of(plan_sizes, rows):
    return np.searchsorted(np.cumsum(plan_sizes), rows, side="right")


def stream_of(plan, stream):
    """The rows of a stream in epoch 0, by the slot rule: positions s, s + S, s + 2S, ..."""
    return read(plan, 0, plan.num_samples)[stream :: plan.num_streams]


# ----------------------------------------------------------------------------
# Exactly once, in every epoch.


@quick
@given(indices, streams, seeds, st.integers(0, 5))
def test_every_sample_comes_once_in_every_epoch(sizes, num_streams, seed, epoch):
    plan, n = SamplePlan(sizes, seed, num_streams=num_streams), sum(sizes)
    assert plan.num_samples == n
    assert sorted(read(plan, epoch * n, (epoch + 1) * n)) == list(range(n))


@quick
@given(indices, streams, seeds, st.integers(1, 40))
def test_the_remainder_of_an_epoch_is_carried_into_the_next_step(
    sizes, num_streams, seed, batch_size
):
    """Whole steps over an epoch boundary lose nothing: m images show each row m // N or one
    more times."""
    plan, n = SamplePlan(sizes, seed, num_streams=num_streams), sum(sizes)
    steps = 3 * n // batch_size + 1
    images = torch.cat([slots(k * batch_size, batch_size, 0, 1) for k in range(steps)])
    assert images.tolist() == list(range(steps * batch_size))
    seen = np.bincount(plan.rows(images.numpy()), minlength=n)
    whole = len(images) // n
    assert set(seen.tolist()) <= {whole, whole + 1}


# ----------------------------------------------------------------------------
# The slot rule, and what it says about workers.


@quick
@given(st.integers(0, 10**12), st.sampled_from(WORLDS), st.integers(1, 5))
def test_rank_r_owns_the_slots_with_j_mod_r(start, world_size, share):
    batch_size = world_size * share
    owned = [slots(start, batch_size, rank, world_size).tolist() for rank in range(world_size)]
    for rank, images in enumerate(owned):
        assert images == [start + j for j in range(batch_size) if j % world_size == rank]
        assert len(images) == share


@quick
@given(indices, streams, seeds, st.integers(0, 200), st.sampled_from(WORLDS))
def test_the_global_batch_is_the_same_for_every_number_of_workers(
    sizes, num_streams, seed, step, world_size
):
    start, batch = step * BATCH, np.full(BATCH, -1)
    for rank in range(world_size):
        plan = SamplePlan(sizes, seed, num_streams=num_streams)  # a process of its own
        images = slots(start, BATCH, rank, world_size).numpy()
        batch[images - start] = plan.rows(images)
    alone = SamplePlan(sizes, seed, num_streams=num_streams)
    assert batch.tolist() == read(alone, start, start + BATCH)


@quick
@given(indices, streams, seeds, st.integers(0, 300), st.integers(1, 20))
def test_a_step_reached_directly_is_the_step_read_up_to(sizes, num_streams, seed, start, count):
    through = read(SamplePlan(sizes, seed, num_streams=num_streams), 0, start + count)
    plan = SamplePlan(sizes, seed, num_streams=num_streams)
    assert read(plan, start, start + count) == through[start:]
    assert read(plan, 0, start + count) == through  # going back changes nothing either


@quick
@given(indices, streams, seeds)
def test_position_i_reads_element_i_div_s_of_stream_i_mod_s(sizes, num_streams, seed):
    """The streams, end to end, are the shards in keyed order: the plan, the long way."""
    plan, n = SamplePlan(sizes, seed, num_streams=num_streams), sum(sizes)
    blocks = [n] if num_streams is None else sizes
    first = np.cumsum([0, *blocks])
    for epoch in range(2):
        row = []
        for block in rng.permutation(seed, f"shards/{epoch}", len(blocks)).tolist():
            inside = rng.permutation(seed, f"samples/{epoch}/{block}", blocks[block])
            row += (first[block] + inside).tolist()
        s, pieces, begin = num_streams or 1, [], 0
        for stream in range(s):
            length = n // s + (1 if stream < n % s else 0)  # the first N % S are one longer
            pieces.append(row[begin : begin + length])
            begin += length
        expected = [pieces[i % s][i // s] for i in range(n)]
        assert read(plan, epoch * n, (epoch + 1) * n) == expected


# ----------------------------------------------------------------------------
# Chance.


@pytest.mark.parametrize("num_streams", [None, 4])
def test_epochs_and_seeds_have_orders_of_their_own(num_streams):
    sizes = [25] * 8
    plans = [SamplePlan(sizes, seed, num_streams=num_streams) for seed in (0, 1, 2)]
    orders = [read(plan, e * 200, (e + 1) * 200) for plan in plans for e in range(3)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < 20  # 1 expected by chance


def test_a_small_index_is_mixed_as_a_whole():
    """One stream of one block: neighbours in the plan are no neighbours in the shards."""
    rows = np.array(read(SamplePlan([100] * 20, 3), 0, 2000))
    same = np.mean(shard_of([100] * 20, rows[1:]) == shard_of([100] * 20, rows[:-1]))
    assert same < 0.1  # 1 / 20 by chance
    places = np.argsort(rows)  # where each row stands in the plan
    assert abs(np.corrcoef(places, np.arange(2000))[0, 1]) < 0.1


def test_the_streams_are_chosen_by_the_size_of_the_index():
    assert SamplePlan([MIX_ROWS], 0).num_streams == 1
    assert SamplePlan([1000] * 2000, 0).num_streams == 1
    assert SamplePlan([1000] * 2001, 0).num_streams == 64
    assert SamplePlan([MIX_ROWS, 1, 1], 0).num_streams == 3  # no more than there are shards


def test_a_split_without_samples_is_an_error():
    for sizes in ([], [0, 0]):
        with pytest.raises(ValueError, match="training split has no samples"):
            SamplePlan(sizes, 0)


# ----------------------------------------------------------------------------
# Stand-ins for unreadable samples.


@quick
@given(indices, streams, seeds, st.data())
def test_successors_are_the_rest_of_the_stream_in_its_order(sizes, num_streams, seed, data):
    plan, n = SamplePlan(sizes, seed, num_streams=num_streams), sum(sizes)
    position = data.draw(st.integers(0, n - 1))
    stream = stream_of(plan, position % plan.num_streams)
    element = position // plan.num_streams
    assert list(plan.successors(position)) == stream[element + 1 :] + stream[:element]


@quick
@given(indices, streams, seeds, st.integers(0, 300))
def test_asking_for_successors_never_shifts_the_plan(sizes, num_streams, seed, image):
    plan = SamplePlan(sizes, seed, num_streams=num_streams)
    before = read(plan, image, image + 20)
    list(plan.successors(image))
    assert read(plan, image, image + 20) == before


# ----------------------------------------------------------------------------
# Bounded and local.


@quick
@given(indices, st.integers(1, 7), seeds)
def test_no_more_than_two_permutations_a_stream_and_one_are_held(sizes, num_streams, seed):
    plan, n = SamplePlan(sizes, seed, num_streams=num_streams), sum(sizes)
    for epoch in range(5):
        for image in range(epoch * n, (epoch + 1) * n):
            plan.rows(np.array([image]))
            assert plan._rows_of_block.cache_info().currsize <= 2 * num_streams + 1
            assert plan._order_of_blocks.cache_info().currsize <= 2
        # A shard is permuted once for each stream that it has a part in, not once a sample.
        permuted = plan._rows_of_block.cache_info().misses
        assert permuted <= (epoch + 1) * (len(sizes) + num_streams - 1)


def test_a_step_that_changes_shards_permutes_only_the_new_ones():
    """Streams change shards at different steps; what the others are in stays held."""
    plan, batch_size = SamplePlan([100] * 64, 5, num_streams=16), 128
    steps = [plan.rows(np.arange(k, k + batch_size)) for k in range(0, 6400, batch_size)]
    assert plan._rows_of_block.cache_info().misses == 64
    assert sorted(np.concatenate(steps).tolist()) == list(range(6400))


def test_the_order_of_a_large_index_is_that_of_the_first_version():
    """Digest of 960 rows and 400 successors, written down when rows were found one by one."""
    digest, sizes = hashlib.sha256(), [[1000] * 2500, [1280] * 2001 + [5]]
    for seed, shards in enumerate(sizes, 1):
        plan, n = SamplePlan(shards, seed), sum(shards)
        for start in (0, n - 50, n * 3 + 17, 10**10):
            digest.update(plan.rows(np.arange(start, start + 120)).tobytes())
        digest.update(np.array(list(islice(plan.successors(n + 3), 200))).tobytes())
    assert digest.hexdigest()[:16] == "934c8b30417b0948"


def test_a_plan_pickles_without_what_it_has_cached():
    plan = SamplePlan([100] * 64, 5, num_streams=16)
    before, again = read(plan, 300, 900), sent(plan)
    assert len(pickle.dumps(plan)) < 64 * 8 + 500
    assert again.num_streams == 16 and read(again, 300, 900) == before


def test_a_step_of_a_large_index_permutes_no_more_than_its_shards(monkeypatch):
    made, permutation = [], rng.permutation

    def watched(seed, purpose, size):
        made.append(size)
        return permutation(seed, purpose, size)

    monkeypatch.setattr(rng, "permutation", watched)
    plan = SamplePlan([1000] * 5000, 0)
    for start in (0, 4_999_000, 10**9):  # the end of an epoch, and far away
        made.clear()
        plan.rows(slots(start, 48, 0, 1).numpy())
        assert max(made) <= 5000  # the order of the shards; never of five million rows
        assert sum(made) <= 2 * 5000 + 48 * 1000
        list(islice(plan.successors(start), 10))


def test_a_rank_reads_few_shards_at_a_time_and_leaves_them_for_good():
    """Sixteen streams, four ranks: a rank reads four streams, so four shards at a time."""
    sizes, num_streams, world_size, batch_size = [50] * 64, 16, 4, 32
    n = sum(sizes)
    plan = SamplePlan(sizes, 7, num_streams=num_streams)
    for rank in range(world_size):
        images = torch.cat(
            [slots(start, batch_size, rank, world_size) for start in range(0, n, batch_size)]
        )
        shards = shard_of(sizes, plan.rows(images.numpy()))
        for begin in range(0, len(shards), 80):
            assert len(set(shards[begin : begin + 80])) <= 2 * num_streams // world_size
        first, last = {}, {}
        for place, shard in enumerate(shards.tolist()):
            first.setdefault(shard, place)
            last[shard] = place
        spans = [last[s] - first[s] for s in first]
        assert max(spans) < 4 * 50  # four streams take turns, fifty samples each
        assert len(first) == 64 // world_size
