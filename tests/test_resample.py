"""What resampling promises, for any labels, options, seed and position."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from process_tools import sent

from cbdm_scale.data.exposure import Part
from cbdm_scale.data.plan import MIX_ROWS, SamplePlan, slots
from cbdm_scale.data.resample import PERIOD, ResampledPlan, check_resampling, make_plan
from cbdm_scale.diffusion.labels import class_probs

BATCH = 24
WORLDS = 1, 2, 3, 4, 6, 8
CIFAR100_LT = [int(500 * 0.01 ** (c / 99)) for c in range(100)]  # 500 .. 5, 10,847 images


@dataclass
class Labels:
    """The part of an index that a plan reads."""

    labels: np.ndarray

    @property
    def num_samples(self):
        return len(self.labels)

    @property
    def shard_sizes(self):
        return np.array([len(self.labels)])


def labelled(counts, seed=0):
    """These images a class, in a shuffled index."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Labels(np.random.default_rng(seed).permutation(labels))


def resampled(counts, power=0.0, balanced=0.0, seed=0):
    return ResampledPlan(labelled(counts), seed, power, balanced)


def read(plan, start, stop):
    return plan.rows(np.arange(start, stop)).tolist()


def targets(plan, counts, power, b):
    """Images of each class in an epoch, by the formula: (K,) float."""
    have = np.array([n for n in counts if n])
    rest = class_probs(torch.from_numpy(have), power).numpy() * (sum(counts) - b)
    return rest + b / len(have)


def histogram(plan, rows):
    return np.bincount(plan.class_of[rows], minlength=len(plan.counts))


all_counts = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any)
powers = st.sampled_from([0.0, 0.25, 0.5, 1.0])
shares = st.one_of(st.just(0.0), st.floats(0, 1))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=15)


@st.composite
def plans(draw):
    counts, power, share = draw(all_counts), draw(powers), draw(shares)
    share = share if round(share * sum(counts)) else 0.0
    return counts, power, share, draw(seeds)


# ----------------------------------------------------------------------------
# Which classes.


@quick
@given(plans(), st.integers(0, 3 * PERIOD))
def test_the_classes_of_an_epoch_are_the_target_to_within_one_image(options, epoch):
    counts, power, share, seed = options
    plan, n = resampled(counts, power, share, seed), sum(counts)
    found = histogram(plan, read(plan, epoch * n, (epoch + 1) * n))
    wanted = targets(plan, counts, power, round(share * n))
    assert found.sum() == n
    assert (abs(found - wanted) < 1 + 1 / PERIOD).all()
    np.testing.assert_array_equal(found, plan.quotas(epoch))


@quick
@given(plans(), st.integers(0, 3))
def test_the_long_run_is_exact(options, periods):
    """After whole periods of the rounding every class has its target, to within one unit of
    1 / PERIOD an epoch; on the way it is never behind by more than a few images."""
    counts, power, share, seed = options
    plan, n = resampled(counts, power, share, seed), sum(counts)
    wanted = targets(plan, counts, power, round(share * n))
    exact = np.diff(plan.ends, prepend=0)
    assert exact.sum() == n * PERIOD and (abs(exact - wanted * PERIOD) <= 1 + 1e-6).all()
    np.testing.assert_array_equal(plan.used(periods * PERIOD), periods * exact)
    for epoch in (1, 7, 1000, PERIOD - 1, 2 * PERIOD + 4097):
        assert (abs(plan.used(epoch) - epoch * exact / PERIOD) < 9).all()


@quick
@given(plans(), st.integers(0, 2 * PERIOD))
def test_what_was_used_before_an_epoch_is_the_sum_of_all_epochs_before(options, epoch):
    counts, power, share, seed = options
    plan = resampled(counts, power, share, seed)
    assert (plan.used(0) == 0).all()
    np.testing.assert_array_equal(plan.used(epoch) + plan.quotas(epoch), plan.used(epoch + 1))
    assert plan.used(epoch).sum() == epoch * plan.num_samples


@quick
@given(all_counts, st.floats(0.05, 1), seeds, st.integers(0, 10**9), st.integers(1, 64))
def test_every_window_holds_its_share_of_balanced_images_to_within_one(
    counts, share, seed, start, length
):
    n = sum(counts)
    if not round(share * n):
        return
    plan = resampled(counts, 1.0, share, seed)
    found = int(plan.is_balanced(np.arange(start, start + length)).sum())
    assert abs(found - Fraction(round(share * n), n) * length) < 1


@quick
@given(plans(), st.integers(0, 100))
def test_balanced_images_are_uniform_over_classes_to_within_one(options, epoch):
    counts, power, share, seed = options
    plan, n = resampled(counts, power, share, seed), sum(counts)
    images = np.arange(epoch * n, (epoch + 1) * n)
    found = histogram(plan, plan.rows(images[plan.is_balanced(images)]))
    assert found.sum() == round(share * n)
    assert (abs(found - found.sum() / len(found)) < 1).all()


def test_a_share_of_a_batch_is_uniform_and_the_rest_follows_the_data():
    plan, n = resampled(CIFAR100_LT, 1.0, 0.25), sum(CIFAR100_LT)
    images = np.arange(40 * n)
    balanced, rows = plan.is_balanced(images), plan.rows(images)
    per_batch = balanced[: n // 64 * 64].reshape(-1, 64).sum(1)
    assert set(per_batch.tolist()) <= {15, 16, 17}
    uniform, rest = histogram(plan, rows[balanced]), histogram(plan, rows[~balanced])
    assert uniform / uniform.sum() == pytest.approx(0.01, rel=0.01)
    assert rest / rest.sum() == pytest.approx(np.array(CIFAR100_LT) / n, rel=0.03)


# ----------------------------------------------------------------------------
# Which images.


@quick
@given(plans(), st.integers(1, 400))
def test_every_image_of_a_class_is_used_equally_often_to_within_one(options, stop):
    """At any image of the run, not only at ends of epochs."""
    counts, power, share, seed = options
    plan = resampled(counts, power, share, seed)
    used = np.bincount(read(plan, 0, stop), minlength=plan.num_samples)
    for c in range(len(plan.counts)):
        own = used[plan.class_of == c]
        assert own.max() - own.min() <= 1


@quick
@given(plans(), st.integers(0, 1000))
def test_half_a_class_stands_between_two_uses_of_an_image(options, epoch):
    counts, power, share, seed = options
    plan, n = resampled(counts, power, share, seed), sum(counts)
    rows = np.array(read(plan, epoch * n, (epoch + 4) * n))
    for c, m in enumerate(plan.counts):
        own = rows[plan.class_of[rows] == c]
        for row in set(own.tolist()):
            gaps = np.diff(np.flatnonzero(own == row))
            assert (gaps >= m // 2 + 1).all()


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_tail_image_repeats_spread_out(power):
    """CIFAR100-LT: the gap between two uses of an image of the last class (5 images) is never
    below a third of its mean; drawn by chance, a tenth of the gaps would be."""
    plan, n = resampled(CIFAR100_LT, power), sum(CIFAR100_LT)
    rows = np.array(read(plan, 0, 12 * n))
    tail = np.flatnonzero(plan.class_of == 99)
    gaps = np.concatenate([np.diff(np.flatnonzero(rows == row)) for row in tail])
    assert len(gaps) > 100
    assert gaps.min() > gaps.mean() / 3
    classes = np.diff(np.flatnonzero(plan.class_of[rows] == 99))
    assert classes.min() > classes.mean() / 4


def test_the_classes_of_a_batch_are_close_to_the_target():
    plan = resampled(CIFAR100_LT, 0.0)
    for step in range(0, 2000, 50):
        found = histogram(plan, read(plan, step * 200, (step + 1) * 200))  # two a class
        assert found.max() <= 4 and (found == 0).sum() <= 1


def test_the_images_of_a_class_come_in_another_order_every_cycle():
    plan = resampled([200, 40], 0.0)
    rows = np.array(read(plan, 0, 40 * 240))
    head = rows[plan.class_of[rows] == 0]
    orders = [head[i * 200 : (i + 1) * 200] for i in range(len(head) // 200)]
    assert len(orders) > 20
    for i, order in enumerate(orders):
        assert sorted(order.tolist()) == sorted(orders[0].tolist())
        assert all((order != other).mean() > 0.9 for other in orders[:i])
    neighbours = {(a, b) for order in orders for a, b in zip(order, order[1:], strict=False)}
    assert len(neighbours) > 0.8 * len(orders) * 199 * (1 - len(orders) / 200)


# ----------------------------------------------------------------------------
# World, position, history.


@quick
@given(plans(), st.integers(0, 10**6), st.sampled_from(WORLDS))
def test_the_global_batch_is_the_same_for_every_number_of_workers(options, step, world_size):
    counts, power, share, seed = options
    start, batch = step * BATCH, np.full(BATCH, -1)
    for rank in range(world_size):
        images = slots(start, BATCH, rank, world_size).numpy()
        batch[images - start] = resampled(counts, power, share, seed).rows(images)
    alone = resampled(counts, power, share, seed)
    assert batch.tolist() == read(alone, start, start + BATCH)


@quick
@given(plans(), st.integers(0, 300), st.integers(1, 30))
def test_a_step_reached_directly_is_the_step_read_up_to(options, start, count):
    through = read(resampled(*options), 0, start + count)
    plan = resampled(*options)
    assert read(plan, start, start + count) == through[start:]
    assert read(plan, 0, start + count) == through


def test_a_step_far_away_is_reached_at_once():
    plan = resampled(CIFAR100_LT, 0.5, 0.1)
    first = 10**12 // plan.num_samples * plan.num_samples
    found = histogram(plan, read(plan, first, first + plan.num_samples))
    assert abs(found - targets(plan, CIFAR100_LT, 0.5, plan.num_balanced)).max() < 1


def test_no_more_than_two_epochs_are_held():
    plan = resampled(CIFAR100_LT, 0.0)
    for epoch in range(6):
        read(plan, epoch * plan.num_samples, epoch * plan.num_samples + 3)
        assert plan._epoch_rows.cache_info().currsize <= 2
    assert plan._epoch_rows.cache_info().misses == 6


def test_seeds_have_orders_of_their_own():
    orders = [read(resampled(CIFAR100_LT, 0.0, seed=seed), 0, 2000) for seed in range(3)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert np.mean(np.array(a) == np.array(b)) < 0.05


def test_without_resampling_the_plan_is_the_plain_one():
    index = labelled(CIFAR100_LT)
    plan, plain = make_plan(index, 3, [Part(0, 1.0, 0.0)]), SamplePlan(index.shard_sizes, 3)
    assert isinstance(plan, SamplePlan)
    assert read(plan, 5, 9000) == read(plain, 5, 9000)
    assert isinstance(make_plan(index, 3, [Part(0, 0.5, 0.0)]), ResampledPlan)
    assert isinstance(make_plan(index, 3, [Part(0, 1.0, 0.5)]), ResampledPlan)


def test_the_order_of_resampled_images_does_not_change():
    """Digest of 3 x 300 rows: an epoch's edge, and far away."""
    plan, digest = resampled(CIFAR100_LT, 0.5, 0.1, seed=7), hashlib.sha256()
    for start in (0, 10_700, 10**9):
        digest.update(plan.rows(np.arange(start, start + 300)).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "a752d72c92eb9b85"


def test_a_plan_pickles_without_what_it_has_cached():
    plan = resampled([9, 3, 1], 0.5, 0.2, seed=5)
    before, again = read(plan, 0, 50), sent(plan)
    assert read(again, 0, 50) == before
    assert again._epoch_rows.cache_info().currsize > 0 and plan.num_streams == 1


# ----------------------------------------------------------------------------
# Stand-ins.


@quick
@given(plans(), st.integers(0, 10**6))
def test_a_stand_in_comes_from_the_class_as_long_as_it_has_images(options, image):
    counts, power, share, seed = options
    plan = resampled(counts, power, share, seed)
    (row,) = read(plan, image, image + 1)
    c = plan.class_of[row]
    own = set(np.flatnonzero(plan.class_of == c).tolist()) - {row}
    found = list(plan.successors(image))
    assert set(found[: len(own)]) == own
    assert all(plan.class_of[r] != c for r in found[len(own) :])
    assert len(found) <= len(own) + plan.num_samples


def test_asking_for_successors_never_shifts_the_plan():
    plan = resampled([9, 3, 1], 0.5, 0.2)
    before = read(plan, 30, 60)
    list(islice(plan.successors(31), 100))
    assert read(plan, 30, 60) == before


# ----------------------------------------------------------------------------
# Refusals.


def test_a_data_set_too_large_to_resample_names_the_options_and_a_way_out():
    check_resampling(MIX_ROWS, [Part(0, 0.5, 0.1)])
    check_resampling(10 * MIX_ROWS, [Part(0, 1.0, 0.0)])
    message = r"data.resample_power \(0.5\).*has 2,000,001.*Use --data.resample-power 1"
    with pytest.raises(ValueError, match=message):
        check_resampling(MIX_ROWS + 1, [Part(0, 1.0, 0.0), Part(9, 0.5, 0.0)])


def test_a_share_below_one_image_an_epoch_is_refused():
    with pytest.raises(ValueError, match=r"balanced_fraction \(0.001\).*at least 0.01"):
        ResampledPlan(labelled([60, 40]), 0, 1.0, 0.001)
