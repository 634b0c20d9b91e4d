"""Batches on the device, and numbers back from it."""

from dataclasses import replace

import pytest
import torch
from training_tools import BATCH, make_batch, make_inputs, on_device

from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.device_transfer import HostCopy


@pytest.mark.parametrize(
    ("micro_batch", "images"),
    [
        (0, [range(8)]),
        (3, [(0, 3, 6), (1, 4, 7), (2, 5)]),
        (4, [(0, 2, 4, 6), (1, 3, 5, 7)]),
        (9, [range(8)]),
    ],
)
def test_micro_batches_are_equally_spaced_images_with_their_draws(micro_batch, images):
    draw, batch = make_inputs().draw, make_batch(torch.arange(BATCH))
    parts = on_device(batch, draw, micro_batch=micro_batch)
    whole = draw(batch.sample_ids, (1, 8, 8), torch.device("cpu"))
    for part, of_it in zip(parts, map(list, images), strict=True):
        assert torch.equal(part.x0, batch.x0[of_it]) and torch.equal(part.y, batch.y[of_it])
        for name in ("t", "eps", "dropped"):
            assert torch.equal(getattr(part.draws, name), getattr(whole, name)[of_it]), name


def test_every_micro_batch_sees_as_many_images_of_the_window():
    """So that the shapes of a step are always the same."""
    draw = make_inputs(objective=LossConfig(reg_share=0.5)).draw
    batches = [make_batch(torch.arange(first, first + BATCH)) for first in range(0, 80, BATCH)]
    shapes = {
        part.shapes for batch in batches for part in on_device(batch, draw, micro_batch=4)
    }
    assert len(shapes) == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_have_the_layout_of_the_network(channels_last):
    batch = make_batch(torch.arange(BATCH))
    batch = replace(batch, x=batch.x.expand(-1, 3, -1, -1).contiguous())
    (part,) = on_device(batch, make_inputs().draw, channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert part.x0.is_contiguous(memory_format=layout)


def test_a_number_is_the_one_of_when_its_copy_was_begun():
    value = torch.tensor(3.0)
    copy = HostCopy(value)
    value.fill_(4)
    assert copy.read() == 3
