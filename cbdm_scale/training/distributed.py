"""What the train loop knows of the cluster: one process, or one of several that reduce.

Ray Train (`cbdm_scale.cluster`), torchrun and the tests start the processes and form their
group; here alone the group is used, and the loop sees a `World`.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cbdm_scale.storage.wording import clip

BLOCK = 1 << 20
"""Numbers that all ranks send to each other at once in ``sum_in_order``."""


class StopAsked(Exception):
    """Work was left because the run is asked to stop; on every rank."""


def never() -> bool:
    """Of a rank that nobody asks to stop."""
    return False


class World:
    """The ranks of a run, as one of them sees them: this process alone, unless a subclass says
    otherwise."""

    rank, size = 0, 1

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network whose backward averages gradients over all ranks."""
        return net

    @contextmanager
    def no_sync(self, net: nn.Module, on: bool) -> Iterator[None]:
        """While ``on``, backward only accumulates: the gradients are averaged later."""
        yield

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a CPU tensor over all ranks."""
        return values

    def begin_sum(self, values: Tensor) -> Callable[[], Tensor]:
        """Begin the same; what comes back waits for it, and gives it."""
        return lambda: values

    def gather(self, value: Any) -> list[Any]:
        """A small plain value of every rank, in rank order."""
        return [value]

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Fill the tensors of every rank with what rank 0's hold."""

    @contextmanager
    def monitored_barrier(
        self, stopped: Callable[[], bool] = never
    ) -> Iterator[Callable[[], None]]:
        """Work that may take some ranks long: all leave together, once all have done it.

        A rank that has done its part waits for as long as the others are alive, not for the
        time-out of a single reduction. If the work fails on a rank, the others raise a
        ValueError without words there: theirs is the message.

        ``stopped``: whether this rank is asked to stop. What is given raises StopAsked in the
        work once a rank is; where a rank has left its work by it, all ranks raise it.
        """

        def check() -> None:
            if stopped():
                raise StopAsked

        yield check


PULSE_S = 0.5
"""Seconds between two signs of life while some ranks still work."""


class DistributedWorld(World):
    """One rank of an initialised torch.distributed group."""

    def __init__(self, device: torch.device, timeout_s: float = 60):
        super().__init__(device)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Small values go by gloo, so that no GPU has to wait for them.
        self._cpu: Any = (
            dist.group.WORLD
            if dist.get_backend() == "gloo"
            else dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        )
        # Signs of life come from another thread, so their reductions need a group of their own.
        self._pulse: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network in DDP, where there are several ranks."""
        if self.size == 1:
            return net
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            net, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=False
        )

    @contextmanager
    def no_sync(self, net: nn.Module, on: bool) -> Iterator[None]:
        """DDP's own, while ``on``."""
        if on and isinstance(net, DistributedDataParallel):
            with net.no_sync():
                yield
        else:
            yield

    def sum(self, values: Tensor) -> Tensor:
        """By gloo, also where the gradients go by NCCL."""
        return self.begin_sum(values)()

    def begin_sum(self, values: Tensor) -> Callable[[], Tensor]:
        """By a thread of gloo."""
        total = values.clone()
        work = dist.all_reduce(total, group=self._cpu, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return total

        return finish

    def gather(self, value: Any) -> list[Any]:
        """By gloo; the value is pickled between the ranks of one run only."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._cpu)
        return values

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """On the device of the tensors, in any memory layout."""
        for tensor in tensors:
            sent = tensor.detach().contiguous()  # the only layout that can be sent
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)

    @contextmanager
    def monitored_barrier(
        self, stopped: Callable[[], bool] = never
    ) -> Iterator[Callable[[], None]]:
        """Another thread reduces signs of life every half second until all are done."""
        done, failed, left, asked = (threading.Event() for _ in range(4))
        outcome: list[Tensor | Exception] = []

        def beat() -> None:
            try:
                ranks = torch.zeros(4)  # that are done, failed, left, are asked to stop
                while ranks[0] < self.size:
                    done.wait(PULSE_S)
                    mine = done.is_set(), failed.is_set(), left.is_set(), stopped()
                    ranks = torch.tensor(mine).float()
                    dist.all_reduce(ranks, group=self._pulse)
                    if ranks[3]:
                        asked.set()
                outcome.append(ranks)
            except Exception as error:
                outcome.append(error)

        def check() -> None:
            if asked.is_set():
                raise StopAsked

        thread = threading.Thread(target=beat, daemon=True, name="pulse")
        thread.start()
        try:
            yield check
        except StopAsked:
            left.set()
        except BaseException:
            failed.set()
            raise
        finally:
            done.set()
            thread.join()
        if isinstance(outcome[0], Exception):
            raise RuntimeError(
                f"a worker did not answer within cluster.timeout_s: {outcome[0]}"
            ) from outcome[0]
        if outcome[0][1]:
            raise ValueError("")
        if outcome[0][2]:
            raise StopAsked


def gather_errors(world: World, text: str) -> str:
    """What went wrong on any rank, each text once; "" where nothing did."""
    return clip(" ".join(sorted(set(world.gather(text)) - {""})), 900)


def sum_in_order(world: World, values: Tensor) -> Tensor:
    """Sum of a vector over ranks, one rank after the other: no ring decides its last bits."""
    if world.size == 1:
        return values
    blocks = []
    for block in values.split(BLOCK):
        first, *others = world.gather(block.clone())  # a view would bring all of its vector
        for other in others:
            first = first + other
        blocks.append(first)
    return torch.cat(blocks)


def run_in_world(
    rank_main: Callable[..., dict[str, Any]],
    timeout_s: float,
    device: torch.device,
    report_checkpoint: Callable[[str, dict[str, float]], None],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """``rank_main(world, report_checkpoint, log)``, on a rank of a group where there is one."""
    grouped = dist.is_initialized()
    world = DistributedWorld(device, timeout_s) if grouped else World(device)
    return rank_main(world, report_checkpoint, log)
