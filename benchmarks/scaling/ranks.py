"""Processes that reduce over gloo: each measures the same variants in lock-step.

In a network of their own where the loopback is to be slow. What they send is counted at the
sockets (Linux's TCP_INFO), so that other processes on the same interface do not count, nor
headers and acknowledgements.
"""

import json
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.scaling.variants import buckets_of, make_variants, new_net
from benchmarks.timing import in_new_process, interleave
from cbdm_scale.training.distributed import DistributedWorld

PATIENCE_S = 3600.0
SENT_AT = 200
"""Offset in struct tcp_info of tcpi_bytes_sent and tcpi_bytes_retrans, 8 bytes each."""
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

    The latter needs root, util-linux and tc.
    """
    prefix = [] if rate == "free" else ["unshare", "--net", "sh", "-c", SLOW.format(rate)]
    env = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return Measured(**in_new_process(all_ranks, asdict(job), env=env, prefix=prefix))


def all_ranks(given: Mapping[str, Any]) -> Any:
    """Start the ranks of a Job, and wait for what they have Measured."""
    job = Job(**given)
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        torch.multiprocessing.spawn(one_rank, (job, folder), nprocs=job.ranks)
        return json.loads(Path(folder, "measured.json").read_text())


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
    for samples in interleave(made, job.repetitions, prepare=lambda name: world.gather(0)):
        if rank == 0:
            print(*(f"{name} {s.wall[-1]:.2f} s" for name, s in samples.items()), sep=" | ")
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
            cpu_s={n: of_ranks(fmean, [r[n][1] for r in ranks]) for n in made},
            sent={n: [r[n][2] for r in ranks] for n in made},
        )
        Path(folder, "measured.json").write_text(json.dumps(asdict(measured)))
    dist.destroy_process_group()


def of_ranks(
    middle: Callable[[Sequence[float]], float], values: Sequence[Sequence[float]]
) -> list[float]:
    """Of each repetition: all ranks begin together, and a step is over with the last."""
    return [middle(found) for found in zip(*values, strict=True)]


def sent_bytes() -> int:
    """Payload that the open TCP sockets of this process have sent, each byte once."""
    return sum(map(_sent, os.listdir("/proc/self/fd")))


def _sent(descriptor: str) -> int:
    """Of one descriptor; 0 for what is no TCP socket."""
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return 0
        with socket.socket(fileno=os.dup(int(descriptor))) as copy:
            info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:  # closed meanwhile, or of another family
        return 0
    if len(info) < SENT_AT + 16:
        raise RuntimeError("this kernel's TCP_INFO does not count bytes: Linux 4.19 is needed.")
    sent, again = struct.unpack_from("QQ", info, SENT_AT)
    return int(sent - again)
