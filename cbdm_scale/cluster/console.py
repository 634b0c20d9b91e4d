"""Lines of the workers on the driver's console."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from cbdm_scale.cluster.progress import Screen

ANSWER_S = 10.0
"""Seconds after which a question for the next line is given up, and asked again."""


class Console:
    """Lines from the workers to the driver's console, without Ray's prefixes and noise."""

    def __init__(self) -> None:
        import ray
        from ray.util.queue import Queue

        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            here, soft=True
        )
        # One that dies, with its node or alone, comes back under the handle that workers have.
        options = {"num_cpus": 0, "scheduling_strategy": strategy, "max_restarts": -1}
        self._queue = Queue(actor_options=options)
        self.log = partial(_put, self._queue)
        self._screen = Screen()

    def _print(self, timeout_s: float) -> None:
        import ray
        from ray.util.queue import Empty

        with suppress(Empty):
            while True:
                line = self._queue.actor.get.remote(timeout_s)
                self._screen.show(ray.get(line, timeout=timeout_s + ANSWER_S))
                timeout_s = 0.05

    @contextmanager
    def printing(self) -> Iterator[None]:
        """While inside, print what the workers log; what is left of it on the way out."""
        over = threading.Event()

        def follow() -> None:
            while not over.is_set():
                try:
                    self._print(0.5)
                except Exception:  # the queue is starting again, or the cluster is going down
                    over.wait(0.5)

        thread = threading.Thread(target=follow, daemon=True, name="console")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)
            with suppress(Exception):
                self._print(0.1)
                self._queue.shutdown()
            self._screen.close()


def _put(queue: Any, text: str) -> None:
    with suppress(Exception):  # a console that is gone must not stop training
        queue.actor.put_nowait.remote(text)
