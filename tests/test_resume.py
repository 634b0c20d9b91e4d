"""One rank reads the storage; what the others hear makes their state the same, bit for bit."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from training_tools import (
    BATCH,
    CONFIG,
    fresh_state,
    make_batches,
    make_callbacks,
    make_inputs,
)

from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.checkpoint import optimizer_tensors, save_checkpoint, save_initial
from cbdm_scale.training.distributed import World
from cbdm_scale.training.loop import train
from cbdm_scale.training.power_ema import pack, start_averages
from cbdm_scale.training.resume import resume


class Told:
    """Rank 0 of two, which keeps what it says; then rank 1, which hears it."""

    size, device = 2, torch.device("cpu")

    def __init__(self, said=None):
        self.rank = 0 if said is None else 1
        self.said = [] if said is None else list(said)

    def gather(self, value):
        if self.rank == 0:
            self.said.append(deepcopy(value))
            return [value, value]
        return [self.said.pop(0), value]

    def broadcast(self, tensors):
        if self.rank == 0:
            self.said.append([t.clone() for t in tensors])
            return
        for mine, theirs in zip(tensors, self.said.pop(0), strict=True):
            mine.copy_(theirs)

    def monitored_barrier(self):
        return nullcontext()


class NoStorage:
    """Any use of it fails."""


def trained():
    """A state after two steps, with averages of two widths."""
    state = fresh_state()
    state.posthoc = start_averages(state.net, wanted=True)
    go_on(state, steps=2)
    return state


def go_on(state, steps):
    """Train until so many steps are done, with every weight of a step."""
    config = replace(CONFIG, total_images=steps * BATCH, warmup_images=0)
    inputs = make_inputs(make_batches(state.progress.num_seen))
    train(state, inputs, config, World(), make_callbacks())


def empty():
    """A state of other weights, as of a rank that has read nothing."""
    state = fresh_state()
    state.posthoc = start_averages(state.net, wanted=True)
    for tensor in (*state.net.parameters(), *state.ema.net.parameters()):
        tensor.data.fill_(7)
    return state


def bits(state):
    return {
        **{f"net {k}": v for k, v in state.net.state_dict().items()},
        **{f"ema {k}": v for k, v in state.ema.net.state_dict().items()},
        **optimizer_tensors(state),
        **pack(state.posthoc),
    }


def both_ranks(folder, fine_tunes=False):
    first, lines = Told(), []
    zero, one = empty(), empty()
    found = resume(folder, zero, first, lines.append, fine_tunes=fine_tunes)
    second = Told(first.said)
    said = []
    assert resume(NoStorage(), one, second, said.append, fine_tunes=fine_tunes) == found
    assert not second.said, "rank 1 has not heard all that rank 0 said"
    assert not said
    return found, zero, one, lines


def test_only_rank_0_reads_and_the_others_have_its_bits(tmp_path):
    folder, state = Storage(str(tmp_path)), trained()
    name = save_checkpoint(folder, state, {})
    found, zero, one, lines = both_ranks(folder)
    assert found and lines == [f"resumed from {folder.path(name)}"]
    for resumed in (zero, one):
        assert resumed.progress == state.progress
        assert bits(resumed).keys() == bits(state).keys()
        for key, value in bits(state).items():
            assert torch.equal(bits(resumed)[key], value), key
    for mine, theirs in zip(bits(one).values(), bits(zero).values(), strict=True):
        assert mine.stride() == theirs.stride(), "fused Adam walks them side by side"


def test_the_next_step_is_the_same_on_a_rank_that_only_heard(tmp_path):
    folder = Storage(str(tmp_path))
    save_checkpoint(folder, trained(), {})
    _, zero, one, _ = both_ranks(folder)
    for state in (zero, one):
        go_on(state, steps=3)
    for key, value in bits(zero).items():
        assert torch.equal(bits(one)[key], value), key


def test_without_a_checkpoint_every_rank_keeps_its_own_start(tmp_path):
    found, zero, one, lines = both_ranks(Storage(str(tmp_path)))
    assert not found and not lines
    assert zero.progress.num_seen == one.progress.num_seen == 0


def test_fine_tuning_starts_from_what_rank_0_read(tmp_path):
    folder, state = Storage(str(tmp_path)), trained()
    save_initial(folder, state.net.state_dict(), {"url": "elsewhere"})
    found, zero, one, lines = both_ranks(folder, fine_tunes=True)
    assert not found and lines == ["started from elsewhere"]
    for resumed in (zero, one):
        for key, value in state.net.state_dict().items():
            assert torch.equal(resumed.net.state_dict()[key], value)
            assert torch.equal(resumed.ema.net.state_dict()[key], value)


def test_a_checkpoint_of_another_network_is_refused_before_anything_is_said(tmp_path):
    folder = Storage(str(tmp_path))
    save_checkpoint(folder, fresh_state(width=8), {})
    with pytest.raises(ValueError, match="another network"):
        resume(folder, fresh_state(), Told(), print, fine_tunes=False)
