"""Replayed calls. What records them here does the call again; test_gpu has CUDA's graphs."""

import pytest
import torch

from cbdm_scale.sampling.graphed import GraphedNet


def net(x, level, y, omega=None, augment=None):
    scale = level + 10 * y + (0 if omega is None else 100 * omega)
    return x * scale.view(-1, 1, 1, 1)


class Recorder:
    """Like a graph: inputs and output stay where they are."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, call):
        self.recorded += 1
        out = call()
        return lambda: out.copy_(call()), out


def inputs(n, seed, **more):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 2, 2, generator=generator), torch.arange(n) + seed, torch.arange(n)


def test_calls_are_those_of_the_network_and_each_shape_is_recorded_once():
    recorder = Recorder()
    graphed = GraphedNet(net, recorder)
    kept = []
    for n, seed in [(3, 0), (2, 1), (3, 2), (2, 3), (3, 4)]:
        given = inputs(n, seed)
        kept.append((graphed(*given), net(*given)))
        omega = torch.rand(n)
        kept.append((graphed(*given, omega), net(*given, omega)))
    for found, expected in kept:  # a later call leaves earlier results alone
        assert torch.equal(found, expected)
    assert recorder.recorded == 4  # two sizes, with and without a strength


def test_a_call_that_cannot_be_recorded_is_made_and_said_once():
    def refuses(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed = GraphedNet(net, refuses)
    given = inputs(3, 0)
    with pytest.warns(UserWarning, match="goes on without CUDA graphs: operation not"):
        assert torch.equal(graphed(*given), net(*given))
    assert torch.equal(graphed(*given), net(*given))  # warnings are errors: no second one
