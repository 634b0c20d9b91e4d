"""Batches on the device, and numbers back from it."""

from dataclasses import replace

import pytest
import torch
from training_tools import BATCH, make_batch, make_inputs, on_device

from cbdm_scale.training.transfer import HostCopy


@pytest.mark.parametrize(("micro_batch", "sizes"), [(0, [8]), (3, [3, 3, 2]), (8, [8])])
def test_micro_batches_are_the_batch_in_parts_with_the_draws_of_their_images(
    micro_batch, sizes
):
    draw, batch = make_inputs().draw, make_batch(torch.arange(BATCH))
    parts = on_device(batch, draw, micro_batch=micro_batch)
    assert [len(part.y) for part in parts] == sizes
    assert torch.equal(torch.cat([part.x0 for part in parts]), batch.x0)
    assert torch.equal(torch.cat([part.y for part in parts]), batch.y)
    whole = draw(batch.sample_ids, (1, 8, 8), torch.device("cpu"))
    for name in ("t", "eps", "dropped"):
        drawn = torch.cat([getattr(part.draws, name) for part in parts])
        assert torch.equal(drawn, getattr(whole, name)), name


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
