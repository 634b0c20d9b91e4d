import pytest
import torch
import torch.distributed as dist
from training_tools import TinyNet

from cbdm_scale.training.world import OneProcess, Processes


@pytest.fixture
def alone():
    """A group of one rank. More ranks: test_determinism.py."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Processes(torch.device("cpu"))
    dist.destroy_process_group()


def check_one_rank(world):
    net = TinyNet()
    assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
    assert world.wrap(net) is net
    assert world.gather({"a": 1}) == [{"a": 1}]
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(world.sum(values), values)
    for on in (True, False):
        with world.local(net, on):
            net(torch.ones(1, 1, 8, 8), None, torch.tensor([0])).sum().backward()
    assert net.last.bias.grad.item() == 2 * 64


def test_one_process_is_a_world_of_one_rank():
    check_one_rank(OneProcess())


def test_a_group_of_one_rank_is_the_same_world(alone):
    check_one_rank(alone)


def test_a_sum_leaves_the_summands_alone(alone):
    mine = torch.tensor([1.0])
    alone.sum(mine).add_(1)
    assert mine.item() == 1
