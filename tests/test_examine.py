"""Scores are summed share by share: the same bits from three ranks and from one process."""

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist

from cbdm_scale.examine import BLOCK, sum_in_order
from cbdm_scale.training.world import OneProcess, Processes

RANKS = 3


def values(rank):
    """Numbers whose sum in float64 depends on the order of the ranks."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(BLOCK + 5, generator=generator, dtype=torch.float64)


def one_rank(rank, folder):
    store = dist.FileStore(str(folder / "meeting"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    total = sum_in_order(Processes(torch.device("cpu")), values(rank))
    (folder / f"{rank}.bin").write_bytes(total.numpy().tobytes())
    dist.destroy_process_group()


def test_three_ranks_sum_to_the_bits_of_one_process(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    a, b, c = (values(rank) for rank in range(RANKS))
    assert not torch.equal(a + b + c, a + (b + c)), "or the order could not show"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "cbdm_scale.run"])
    ranks = [context.Process(target=one_rank, args=(r, tmp_path)) for r in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    expected = sum_in_order(OneProcess(), a + b + c).numpy().tobytes()
    assert all((tmp_path / f"{r}.bin").read_bytes() == expected for r in range(RANKS))
