"""Lines of the workers on the driver's console."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from cbdm_scale.cluster.progress import Screen

ANSWER_S = 10.0
"""Seconds after which a question for the next lines is given up, and asked again."""


class _Lines:
    """What runs in a process between them. No lines is an answer, not an error, which Ray's own
    queue raises: its dashboard would count a failed task twice a second in a healthy run.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.more = asyncio.Event()

    async def put(self, line: str) -> None:
        self.lines.append(line)
        self.more.set()

    async def take(self, timeout_s: float) -> list[str]:
        """All lines that are there, as soon as there are any; none after so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.more.wait(), timeout_s)
        self.more.clear()
        lines, self.lines = self.lines, []
        return lines


class Console:
    """Lines from the workers to the driver's console, without Ray's prefixes and noise."""

    def __init__(self) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            here, soft=True
        )
        # One that dies, with its node or alone, comes back under the handle that workers have.
        actor = ray.remote(num_cpus=0, scheduling_strategy=strategy, max_restarts=-1)(_Lines)
        self._lines = actor.remote()
        self.log = partial(_put, self._lines)
        self.heard = False
        """Whether a worker has said anything."""
        self._screen = Screen()

    def _print(self, timeout_s: float) -> None:
        import ray

        while lines := ray.get(
            self._lines.take.remote(timeout_s), timeout=timeout_s + ANSWER_S
        ):
            self.heard, timeout_s = True, 0.05
            for line in lines:
                self._screen.show(line)

    @contextmanager
    def printing(self) -> Iterator[None]:
        """While inside, print what the workers log; what is left of it on the way out."""
        over = threading.Event()

        def follow() -> None:
            while not over.is_set():
                try:
                    self._print(0.5)
                except Exception:  # the process starts again, or the cluster is going down
                    over.wait(0.5)

        thread = threading.Thread(target=follow, daemon=True, name="console")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)
            with suppress(Exception):
                import ray

                self._print(0.1)
                ray.kill(self._lines)
            self._screen.close()


def _put(lines: Any, text: str) -> None:
    with suppress(Exception):  # a console that is gone must not stop training
        lines.put.remote(text)
