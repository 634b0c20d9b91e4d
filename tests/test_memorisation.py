import pytest
import torch
from feature_tools import normal

from cbdm_scale.metrics.memorisation import memorisation

COUNTS = [120, 120, 120, 30, 30, 30, 10, 10, 10]
Y = torch.arange(9).repeat_interleave(torch.tensor(COUNTS))
TAIL = Y >= 6


def by_group(result):
    return {row.group: row for row in result.groups}


def images(seed):
    return normal(seed, len(Y), 16)


def test_fresh_images_are_as_far_as_training_images_from_each_other():
    rows = by_group(memorisation(images(0), Y, images(1), Y, COUNTS))
    assert [rows[g].num_images for g in (None, "many", "medium", "few")] == [480, 360, 90, 30]
    for row in rows.values():
        assert row.median_ratio == pytest.approx(1.05, abs=0.15) and row.copies == 0


def test_copies_of_tail_images_are_caught_and_named_in_their_group():
    train, fake = images(0), images(1)
    fake[TAIL] = train[TAIL] + 0.01 * normal(2, int(TAIL.sum()), 16)
    result = memorisation(train, Y, fake, Y, COUNTS)
    rows = by_group(result)
    assert (rows["few"].copies, rows["many"].copies, rows["medium"].copies) == (1.0, 0.0, 0.0)
    assert rows[None].copies == pytest.approx(30 / 480)
    assert rows["few"].median_ratio < 0.05
    assert torch.equal(result.nearest[TAIL], TAIL.nonzero().flatten())


def test_a_copy_under_another_label_is_a_copy():
    train = images(0)
    rows = by_group(memorisation(train, Y, train[Y == 0][:10], torch.full((10,), 8), COUNTS))
    assert rows["few"].copies == 1.0
    assert (rows["many"].num_images, rows["many"].copies, rows["many"].median_ratio) == (
        0,
        None,
        None,
    )


def test_copies_within_the_training_set_do_not_hide_their_copies():
    train = images(0)
    train[1] = train[0] + 1e-4
    near = train[:1] + 0.01
    result = memorisation(train, Y, near, Y[:1], COUNTS)
    assert result.ratio[0] < 0.1 and result.groups[0].copies == 1.0


def test_distances_and_ratios_are_those_of_the_definition():
    train, fake = torch.tensor([[0.0], [3], [10]]), torch.tensor([[4.0], [9]])
    y = torch.arange(3)
    result = memorisation(train, y, fake, y[:2], [1] * 3)
    assert (result.nearest.tolist(), result.distance.tolist()) == ([1, 2], [1, 1])
    assert result.ratio.tolist() == pytest.approx([1 / 3, 1 / 7])


def test_a_training_set_of_one_image_has_no_yardstick():
    with pytest.raises(ValueError, match="at least 2 training images, got 1"):
        memorisation(images(0)[:1], Y[:1], images(1), Y, COUNTS)
