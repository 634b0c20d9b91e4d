"""A schedule of the exposure: how it is written, and what its plan promises at any image."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process_tools import sent
from test_resample import CIFAR100_LT, WORLDS, histogram, labelled, read

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.exposure import Part, canonical_exposure, exposure_parts, parse_exposure
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.options import DataConfig
from cbdm_scale.data.plan import SamplePlan, slots
from cbdm_scale.data.resample import ChangingPlan, ResampledPlan, make_plan
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.train import parse
from tune.pbt import check_searchable
from tune.space import make_space

POWER = "data.resample_power"
DRS = "1,0.5@0.6"
quick = settings(max_examples=20)


@st.composite
def schedules(draw):
    """Classes, parts of a run with two or three exposures, and a seed."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    starts = draw(st.lists(st.integers(1, 90), min_size=1, max_size=3, unique=True))
    exposures = st.sampled_from([(1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (1.0, 0.6), (0.25, 1.0)])
    parts = tuple(Part(start, *draw(exposures)) for start in (0, *sorted(starts)))
    return labelled(counts), draw(st.integers(0, 2**32)), parts


# ----------------------------------------------------------------------------
# How it is written.


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("1,0.5@0.6", "1,0.5@0.6"),
        ("1@0 .5@.6", "1,0.5@0.6"),
        ("1, 0.5@0.6, 0@0.8", "1,0.5@0.6,0@0.8"),
        ("1,1@0.5", 1.0),
        ("0.5@0", 0.5),
        ("0.3333333", 0.3333333),
        ("1,0.5@0.2,0.5@0.6,1@0.7", "1,0.5@0.2,1@0.7"),
    ],
)
def test_one_schedule_has_one_spelling_and_one_that_never_changes_is_a_number(text, canonical):
    assert canonical_exposure(parse_exposure(POWER, text, 1.0)) == canonical
    config = DataConfig(resample_power=text)
    assert config == DataConfig(resample_power=canonical) == replace(config)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "must be a number from 0 to 1"),
        ("ddpm", "must be a number from 0 to 1, or several as VALUE@SHARE, got ddpm"),
        ("1,0.5", "must be a number from 0 to 1, or several as VALUE@SHARE, got 1,0.5"),
        ("1,2@0.5", "must be from 0 to 1, got 1,2@0.5"),
        ("nan", "must be from 0 to 1"),
        ("1@0.2,0.5@0.6", "must say what holds from share 0 on"),
        ("1,0.5@0", "must have shares of the run that rise, below 1"),
        ("1,0.5@1", "must have shares of the run that rise, below 1"),
        ("1,0.5@-0.5", "must have shares of the run that rise"),
        ("1,0.5@nan", "must have shares of the run that rise"),
        ("1,0.5@0.6,0@0.4", "must have shares of the run that rise"),
        ("1,0.5@0.6,0@0.6", "must have shares of the run that rise"),
    ],
)
def test_a_schedule_that_makes_no_sense_names_option_value_and_way_out(text, words):
    for option, usual in ((POWER, "1"), ("data.balanced_fraction", "0")):
        with pytest.raises(ValueError) as error:
            DataConfig(**{option.removeprefix("data."): text})
        flag = "--" + option.replace("_", "-")
        assert f"{option} {words}" in str(error.value) and f"{flag} {usual}," in str(
            error.value
        )


def test_parts_are_of_whole_images_and_both_options_share_them():
    parts = exposure_parts(DRS, "0,0.25@0.6,0.5@0.75", 1001)
    assert parts == (Part(0, 1, 0), Part(601, 0.5, 0.25), Part(751, 0.5, 0.5))
    assert exposure_parts(0.5, 0, 10) == (Part(0, 0.5, 0),)


@pytest.mark.parametrize("text", ["1,0.5@0.6,0@0.6001", "1,0.5@0.0001", "1,0.5@0.9999"])
def test_changes_that_fall_on_one_image_or_on_an_end_are_refused(text):
    words = r"data.resample_power \(1,0.5@0.*image \d+ of train.total_images \(100\).*Move"
    config = with_options(Config(), {"train.total_images": 19_200, POWER: text})
    with pytest.raises(ValueError, match=words):
        with_options(config, {"train.total_images": 100})


def test_it_is_typed_as_one_word_and_goes_through_json():
    config = parse(
        ["--data.resample-power", "1@0,.5@.6", "--data.balanced-fraction=0.1"]
    ).config
    assert (config.data.resample_power, config.data.balanced_fraction) == (DRS, 0.1)
    flat = config.flat()
    assert flat[POWER] == DRS
    assert with_options(Config(), {POWER: DRS}).data == replace(
        Config().data, resample_power=DRS
    )
    with pytest.raises(ValueError, match="data.resample_power takes a number, got 'True"):
        with_options(Config(), {POWER: True})


def test_a_change_of_a_schedule_is_a_number_that_a_search_can_choose():
    words = "data.resample-power@0.6=0:1", "data.balanced_fraction@.8=0:0.5"
    space = make_space(words, Config())
    found = with_options(Config(), {f"{POWER}@0.8": 0.25, f"{POWER}@0.6": 0.5, POWER: 1.0})
    assert found.data.resample_power == "1,0.5@0.6,0.25@0.8"
    ends = {option: dimension.ends[1] for option, dimension in space.items()}
    found = with_options(Config(), ends).data
    assert (found.resample_power, found.balanced_fraction) == (1.0, "0,0.5@0.8")
    with pytest.raises(ValueError, match=r"must be from 0 to 1, got 1.0,2.0@0.6"):
        make_space([f"{POWER}@0.6=0:2"], Config())
    with pytest.raises(ValueError, match=r"space \(data.resample_power@0.6.*--scheduler asha"):
        check_searchable(space)
    for option in ("loss.tau@0.6", f"{POWER}@2", f"{POWER}@"):
        with pytest.raises(ValueError, match=f"{option} is no option of a run"):
            with_options(Config(), {option: 0.5})


def test_with_a_schedule_the_length_of_the_run_is_part_of_what_is_learnt(digits_root, tmp_path):
    """Its changes are at shares of it: a longer run is another, never the same one moved."""
    plain = with_options(
        Config(), {"data.root": digits_root, "cluster.storage": str(tmp_path), "name": "mine"}
    )
    longer = {"train.total_images": 2 * plain.train.total_images}
    assert with_options(plain, longer | {"name": ""}).run_name == Config().run_name
    drs = with_options(plain, {POWER: DRS})
    unnamed = with_options(drs, {"name": ""})
    assert unnamed.run_name != with_options(unnamed, longer).run_name
    manifest = read_manifest(digits_root, "digits_lt")
    open_run_dir(drs, manifest)
    with pytest.raises(
        ValueError, match="train.total_images .* there.*shares are of train.tot"
    ):
        open_run_dir(with_options(drs, longer), manifest)


# ----------------------------------------------------------------------------
# Which images.


@quick
@given(schedules(), st.integers(0, 150), st.integers(1, 40))
def test_an_image_reached_directly_is_the_one_read_up_to(schedule, start, count):
    """Also in another process, and across a change."""
    through = read(make_plan(*schedule), 0, start + count)
    plan = make_plan(*schedule)
    assert isinstance(plan, ChangingPlan)
    assert read(plan, start, start + count) == through[start:]
    assert read(sent(plan), start, start + count) == through[start:]


@quick
@given(schedules(), st.integers(0, 7), st.sampled_from(WORLDS))
def test_the_global_batch_is_the_same_for_every_number_of_workers(schedule, step, world_size):
    start, batch = 24 * step, np.full(24, -1)
    for rank in range(world_size):
        images = slots(start, 24, rank, world_size).numpy()
        batch[images - start] = make_plan(*schedule).rows(images)
    assert batch.tolist() == read(make_plan(*schedule), start, start + 24)


@quick
@given(schedules())
def test_up_to_its_first_change_a_run_is_the_one_without(schedule):
    index, seed, parts = schedule
    first = parts[1].start
    assert read(make_plan(*schedule), 0, first) == read(
        make_plan(index, seed, parts[:1]), 0, first
    )


@quick
@given(schedules(), st.integers(1, 200))
def test_every_image_of_a_class_is_used_equally_often_to_within_one_at_any_time(schedule, stop):
    """An image of a plain epoch that a change cut is not forgotten, and none comes twice."""
    index, _, parts = schedule
    used = np.bincount(read(make_plan(*schedule), 0, stop), minlength=index.num_samples)
    for c in set(index.labels):
        own = used[index.labels == c]
        assert own.max() - own.min() <= 1, (parts, stop, own)


@quick
@given(schedules(), st.integers(0, 3))
def test_the_classes_of_every_epoch_of_a_part_are_its_target_to_within_one(schedule, epoch):
    index, seed, parts = schedule
    plan, n = make_plan(*schedule), index.num_samples
    for part, following in pairwise((*parts, Part(10**6, 1, 0))):
        first = part.start + epoch * n
        if part.start == 0 or first + n > following.start:
            continue
        alone = ResampledPlan(index, seed, part.power, part.balanced_fraction)
        found = histogram(alone, read(plan, first, first + n))
        np.testing.assert_array_equal(found, alone.quotas(epoch))


def test_deferred_resampling_shows_the_data_and_then_its_target():
    total, n = 40 * sum(CIFAR100_LT), sum(CIFAR100_LT)
    plan = make_plan(labelled(CIFAR100_LT), 0, exposure_parts("1,0@0.6", 0.0, total))
    alone = ResampledPlan(labelled(CIFAR100_LT), 0, 0.0, 0.0)
    before = histogram(alone, read(plan, 0, 24 * n))
    np.testing.assert_array_equal(before, 24 * np.array(CIFAR100_LT))
    after = histogram(alone, read(plan, 24 * n, total))
    assert abs(after - 16 * n / 100).max() < 2


def test_a_part_has_an_order_of_its_own():
    """A return to the first exposure does not play the run's beginning again."""
    index, n = labelled(CIFAR100_LT), sum(CIFAR100_LT)
    parts = (Part(0, 0.5, 0), Part(n, 0, 0), Part(2 * n, 0.5, 0))
    plan, again = make_plan(index, 3, parts), make_plan(index, 3, parts[:1])
    assert read(plan, 0, n) == read(again, 0, n)
    classes = [again.class_of[read(plan, start, start + 999)] for start in (0, 2 * n)]
    assert (classes[0] == classes[1]).mean() < 0.2


def test_a_stand_in_is_of_the_class_that_the_part_had_planned():
    plan = make_plan(labelled([9, 3, 4]), 5, (Part(0, 1, 0), Part(21, 0, 0)))
    (row,) = read(plan, 30, 31)
    labels = labelled([9, 3, 4]).labels
    own = [r for r in np.flatnonzero(labels == labels[row]) if r != row]
    assert sorted(list(plan.successors(30))[: len(own)]) == own
    plain = SamplePlan(np.array([16]), 5)
    assert list(plan.successors(20)) == list(plain.successors(20))
