"""Processes that reduce over gloo: started here, each measures the same variants in lock-step.

Shapes: R = ranks.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Job:
    """What every rank of a group does."""

    ranks: int
    variants: list[str]
    repetitions: int
    channels: int
    images: int
    threads: int = 1


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


Command = Callable[[int, list[str]], list[str]]
"""(rank, words) -> the words that run them where that rank lives, such as in a namespace."""


def here(rank: int, words: list[str]) -> list[str]:
    """As they are: on this machine."""
    return words


@contextmanager
def slow_loopback(rate: str) -> Iterator[Command]:
    """A network of its own whose loopback carries so much ("1gbit") of all ranks together.

    "" is this machine's loopback as it is. Needs root, unshare, nsenter, ip and tc.
    """
    if not rate:
        yield here
        return
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        try:
            while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.05)
            enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
            limit = f"tc qdisc add dev lo root tbf rate {rate} burst 256kb latency 200ms"
            for words in ("ip link set lo up", limit):
                subprocess.run([*enter, *words.split()], check=True)
            yield lambda rank, words: [*enter, *words]
        finally:
            holder.kill()


def run(job: Job, command: Command = here, interface: str = "lo") -> Measured:
    """Start the ranks, wait for them, and read what rank 0 wrote."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        Path(folder, "job.json").write_text(json.dumps(asdict(job)))
        env = os.environ | {
            "OMP_NUM_THREADS": str(job.threads),
            "GLOO_SOCKET_IFNAME": interface,
        }
        words = [sys.executable, "-m", "benchmarks.scaling.ranks", folder]
        started = [
            subprocess.Popen(command(rank, [*words, str(rank)]), env=env)
            for rank in range(job.ranks)
        ]
        try:
            codes = [process.wait(PATIENCE_S) for process in started]
        finally:
            for process in started:
                process.kill()
        if any(codes):
            raise RuntimeError(f"a rank failed: exit statuses {codes}")
        return Measured(**json.loads(Path(folder, "measured.json").read_text()))


def one_rank(folder: Path, rank: int) -> None:
    """What a rank does: rank 0 writes measured.json."""
    import torch
    import torch.distributed as dist

    from benchmarks.scaling.variants import buckets_of, make_variants, new_net
    from benchmarks.scaling.wire import sent_bytes
    from benchmarks.timing import interleave
    from cbdm_scale.training.distributed import DistributedWorld

    job = Job(**json.loads((folder / "job.json").read_text()))
    torch.set_num_threads(job.threads)
    store = dist.FileStore(str(folder / "meeting"), job.ranks)
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
    quiet = redirect_stdout(io.StringIO()) if rank else nullcontext()
    with quiet:
        samples = interleave(
            made, job.repetitions, lambda _: None, prepare=lambda _: world.gather(0) and None
        )
    mine = {n: (s.wall, s.cpu, sent[n]) for n, s in samples.items()}
    told: list[dict[str, Any]] = world.gather(mine)
    if rank == 0:
        net = new_net(job.channels)
        measured = Measured(
            ranks=job.ranks,
            gradient_bytes=sum(buckets_of(net)),
            buckets=buckets_of(net),
            small_buckets=buckets_of(net, 1),
            wall_s={n: slowest([t[n][0] for t in told]) for n in made},
            cpu_s={n: mean([t[n][1] for t in told]) for n in made},
            sent={n: [t[n][2] for t in told] for n in made},
        )
        (folder / "measured.json").write_text(json.dumps(asdict(measured)))
    dist.destroy_process_group()


def slowest(of_ranks: Sequence[Sequence[float]]) -> list[float]:
    """Of each repetition: all ranks begin together, and the step is over with the last."""
    return [max(values) for values in zip(*of_ranks, strict=True)]


def mean(of_ranks: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*of_ranks, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("rank", type=int)
    args = parser.parse_args()
    one_rank(args.folder, args.rank)
