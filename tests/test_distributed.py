import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from gloo_tools import FORKSERVER
from training_tools import TinyNet

from cbdm_scale.training.distributed import DistributedWorld, StopAsked, World


@pytest.fixture
def alone():
    """A group of one rank. More ranks: test_determinism.py."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield DistributedWorld(torch.device("cpu"))
    dist.destroy_process_group()


def check_one_rank(world):
    net = TinyNet()
    assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
    assert world.wrap(net) is net
    assert world.gather({"a": 1}) == [{"a": 1}]
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(world.sum(values), values)
    for on in (True, False):
        with world.no_sync(net, on):
            net(torch.ones(1, 1, 8, 8), None, torch.tensor([0])).sum().backward()
    assert net.last.bias.grad.item() == 2 * 64


def test_one_process_is_a_world_of_one_rank():
    check_one_rank(World())


def test_a_group_of_one_rank_is_the_same_world(alone):
    check_one_rank(alone)


def test_a_sum_leaves_the_summands_alone(alone):
    mine = torch.tensor([1.0])
    alone.sum(mine).add_(1)
    assert mine.item() == 1


# ----------------------------------------------------------------------------
# Work that takes one rank much longer than the other. The time-out is 2 seconds.


def work(case, rank, check):
    """Rank 1 has nothing to do, rank 0 is slow, fails or dies; or one of them is asked to
    stop while rank 0 has work without end."""
    if rank:
        return
    if "is asked" in case:
        while True:
            check()
            time.sleep(0.01)
    elif case == "is slow":
        time.sleep(5)
    elif case == "fails":
        raise ValueError("my part failed")
    elif case == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif case == "is stopped":
        os.kill(os.getpid(), signal.SIGSTOP)


def rank_main(case, rank, meeting, said):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(meeting), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    world = DistributedWorld(torch.device("cpu"), timeout_s=2)
    store.set(f"{rank} is connected", "")
    store.wait([f"{1 - rank} is connected"])  # or a death would meet the start, not the work
    late = case == "all are asked when they are done"
    try:
        with world.monitored_barrier(lambda: case == f"{rank} is asked" or late) as check:
            work(case, rank, check)
        said.put((rank, "together"))
    except (ValueError, RuntimeError, StopAsked) as error:
        said.put((rank, f"{type(error).__name__}: {error}"[:200]))
    said.close()
    said.join_thread()
    os._exit(0)


def meet(case, folder):
    """What each rank says in the end; a rank that can say nothing is not in it."""
    said = FORKSERVER.Queue()
    ranks = [
        FORKSERVER.Process(target=rank_main, args=(case, r, folder / "meeting", said))
        for r in range(2)
    ]
    for process in ranks:
        process.start()
    try:
        ranks[1].join(60)
        if case != "is stopped":
            ranks[0].join(60)
        silent = {"dies", "is stopped"}
        return dict(said.get(timeout=10) for _ in range(1 if case in silent else 2))
    finally:
        for process in ranks:
            process.kill()
            process.join()


def test_a_rank_that_is_done_waits_beyond_the_time_out_for_one_that_lives(tmp_path):
    assert meet("is slow", tmp_path) == {0: "together", 1: "together"}


def test_a_rank_that_fails_takes_the_others_along_and_has_the_word(tmp_path):
    assert meet("fails", tmp_path) == {0: "ValueError: my part failed", 1: "ValueError: "}


@pytest.mark.parametrize("asked", [0, 1])
def test_a_rank_that_is_asked_to_stop_takes_the_others_along(tmp_path, asked):
    """Whichever it is, and however unequal their shares are."""
    assert meet(f"{asked} is asked", tmp_path) == {0: "StopAsked: ", 1: "StopAsked: "}


def test_work_that_is_done_when_a_rank_is_asked_to_stop_is_kept(tmp_path):
    said = meet("all are asked when they are done", tmp_path)
    assert said == {0: "together", 1: "together"}


@pytest.mark.parametrize("case", ["dies", "is stopped"])
def test_a_rank_that_is_gone_is_not_waited_for(tmp_path, case):
    said = meet(case, tmp_path)
    assert said.keys() == {1} and "did not answer within cluster.timeout_s" in said[1]


# ----------------------------------------------------------------------------
# Tensors of rank 0, for the others.


def hear(rank, meeting, said):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(meeting), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    world = DistributedWorld(torch.device("cpu"), timeout_s=60)
    filled = torch.arange(24.0) if rank == 0 else torch.zeros(24)
    image = filled.view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    step = torch.tensor(float(5 - 5 * rank))
    world.broadcast([image, step])
    said.put((rank, image.flatten().tolist(), image.stride(), step.item()))
    dist.destroy_process_group()


def test_ranks_get_the_tensors_of_rank_0_in_their_own_layout(tmp_path):
    said = FORKSERVER.SimpleQueue()
    ranks = [
        FORKSERVER.Process(target=hear, args=(r, tmp_path / "meeting", said)) for r in (0, 1)
    ]
    for process in ranks:
        process.start()
    heard = sorted(said.get() for _ in ranks)
    for process in ranks:
        process.join(60)
    expected = (list(map(float, range(24))), (24, 1, 8, 2), 5.0)
    assert heard == [(0, *expected), (1, *expected)]
