"""Processes that reduce over gloo: each measures the same variants in lock-step.

    python -m benchmarks.scaling.ranks JOB

Started by ``run``, in a network of its own where the loopback is to be slow. Shapes: R = ranks.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.scaling.variants import buckets_of, make_variants, new_net
from benchmarks.scaling.wire import sent_bytes
from benchmarks.timing import in_new_process, interleave, mean
from cbdm_scale.training.distributed import DistributedWorld

PATIENCE_S = 3600.0
SLOW = (
    "ip link set lo up && tc qdisc add dev lo root tbf rate {} burst 256kb latency 200ms"
    ' && exec "$0" "$@"'
)


@dataclass(frozen=True)
class Job:
    """What every rank of a group does."""

    ranks: int
    variants: list[str]
    repetitions: int
    channels: int
    images: int


@dataclass(frozen=True)
class Measured:
    """Seconds of each variant (the slowest rank's) and bytes that each rank sent in one."""

    ranks: int
    gradient_bytes: int
    buckets: list[int]
    """Bytes of the buckets as the product sets DDP up."""
    small_buckets: list[int]
    """With buckets of 1 MiB."""
    wall_s: dict[str, list[float]]
    cpu_s: dict[str, list[float]]
    sent: dict[str, list[int]]


def run(job: Job, rate: str = "free") -> Measured:
    """Measure on this machine's loopback, or on one that carries ``rate`` ("1gbit") in all.

    The latter needs root, unshare, ip and tc.
    """
    prefix = [] if rate == "free" else ["unshare", "--net", "sh", "-c", SLOW.format(rate)]
    env = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    words = [json.dumps(asdict(job))]
    return Measured(**in_new_process("benchmarks.scaling.ranks", words, env, prefix))


def one_rank(rank: int, job: Job, folder: str) -> None:
    """What a rank does: rank 0 writes measured.json."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/meeting", job.ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=job.ranks)
    world = DistributedWorld(torch.device("cpu"), PATIENCE_S)
    made = make_variants(world, job.channels, job.images, job.variants)
    sent: dict[str, int] = {}
    for name, step in made.items():  # the first of each allocates, the second is counted
        step()
        world.gather(0)
        before = sent_bytes()
        step()
        sent[name] = sent_bytes() - before
    samples = interleave(
        made,
        job.repetitions,
        prepare=lambda name: world.gather(0) and None,
        log=partial(print, file=sys.stderr) if rank == 0 else lambda line: None,
    )
    mine = {n: (s.wall, s.cpu, sent[n]) for n, s in samples.items()}
    ranks: list[dict[str, Any]] = world.gather(mine)
    if rank == 0:
        net = new_net(job.channels)
        measured = Measured(
            ranks=job.ranks,
            gradient_bytes=sum(buckets_of(net)),
            buckets=buckets_of(net),
            small_buckets=buckets_of(net, 1),
            wall_s={n: of_ranks(max, [r[n][0] for r in ranks]) for n in made},
            cpu_s={n: of_ranks(mean, [r[n][1] for r in ranks]) for n in made},
            sent={n: [r[n][2] for r in ranks] for n in made},
        )
        Path(folder, "measured.json").write_text(json.dumps(asdict(measured)))
    dist.destroy_process_group()


def of_ranks(middle: Any, values: Sequence[Sequence[float]]) -> list[float]:
    """Of each repetition: all ranks begin together, and a step is over with the last."""
    return [middle(found) for found in zip(*values, strict=True)]


if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        torch.multiprocessing.spawn(one_rank, (job, folder), nprocs=job.ranks)
        print(Path(folder, "measured.json").read_text())
