"""The step of a run as one CUDA graph: one launch in place of thousands.

The first steps run as they are, on the stream that records later: libraries set themselves up,
kernels are compiled, the optimiser gets its moments. Then the same function is recorded, once.
From there on a step is: copy the batch and the rates to where the graph reads them, replay.
Dropout's numbers are those of the generator's seed at the time of the replay.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from cbdm_scale.torch_internals import foreach_copy_
from cbdm_scale.training.device_transfer import MicroBatch
from cbdm_scale.training.distributed import World
from cbdm_scale.training.options import TrainConfig
from cbdm_scale.training.step import Rates, StepResult, TrainStep

Step = Callable[[Sequence[MicroBatch], Rates], StepResult]
Call = Callable[[], StepResult]

WARM_UP = 3
"""Steps that run as they are before one is recorded."""


def graphed(
    step: TrainStep, config: TrainConfig, world: World, log: Callable[[str], None]
) -> Step:
    """The step as ``train.graph`` wants it; ValueError where it must be a graph and cannot.

    ``auto`` says in one line why a GPU gets none.
    """
    on_gpu, why = world.device.type == "cuda", ""
    if not on_gpu:
        why = f"training runs on {world.device.type}, and graphs are of CUDA"
    elif world.size > 1:
        why = f"{world.size} GPUs average their gradients within a step"
    if config.graph == "off" or (config.graph == "auto" and not on_gpu):
        return step
    if not why:
        return GraphedStep(step, world.device, log)
    if config.graph == "on":
        raise ValueError(f"train.graph (on) cannot be: {why}. Try --train.graph auto.")
    log(f"train.graph: off, because {why}")
    return step


def record(call: Call, stream: torch.cuda.Stream) -> Call:
    """Record a call on a stream, and what replays it: nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[stream.device_index]
    before = generator.clone_state()
    try:
        # Other threads, as one that writes a checkpoint, may go on meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = call()
    except RuntimeError:
        generator.graphsafe_set_state(before)  # or it would wait for the end of the recording
        raise

    def replay() -> StepResult:
        graph.replay()
        return result

    return replay


class GraphedStep:
    """A `TrainStep` that is recorded once its first steps are done.

    Where it cannot be recorded, or the shapes of a step are not those of the steps before, it
    says so, once, and goes on as it is.
    """

    def __init__(
        self,
        step: TrainStep,
        device: torch.device,
        log: Callable[[str], None],
        record: Callable[[Call, torch.cuda.Stream], Call] = record,
    ):
        self.step, self.device, self.log, self.record = step, device, log, record
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.steps, self.refused = 0, False
        self.replay: Call | None = None
        self.parts: list[MicroBatch] = []
        """What the graph reads."""

    def __call__(self, parts: Sequence[MicroBatch], rates: Rates) -> StepResult:
        """Take the step. What comes back holds until the next one."""
        if not self.parts:
            self._make_room(parts)
        same = [p.shapes for p in parts] == [p.shapes for p in self.parts]
        if not same and not self.refused:
            self._refuse(
                "the shapes of a step changed; does train.micro_batch divide the batch?"
            )
        if self.refused:
            return self.step(parts, rates)
        self._copy_in(parts, rates)
        self.steps += 1
        if self.steps <= WARM_UP:
            with self._beside():
                return self._body()
        if self.replay is None:
            try:
                self.replay = self.record(self._body, self.stream)  # type: ignore[arg-type]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._refuse(str(error).splitlines()[0])
                return self.step(parts, rates)
        return self.replay()

    def _make_room(self, parts: Sequence[MicroBatch]) -> None:
        self.parts = [part.clone() for part in parts]
        self.numbers = torch.zeros(1 + len(self.step.averages), device=self.device)

    def _copy_in(self, parts: Sequence[MicroBatch], rates: Rates) -> None:
        new = torch.tensor([rates.lr, *rates.shares], pin_memory=self.stream is not None)
        self.numbers.copy_(new, non_blocking=True)
        # An average that forgets alike in all steps needs no number that changes.
        lr, *varying = self.numbers.unbind()
        shares = zip(self.step.averages, rates.shares, varying, strict=True)
        self.rates = Rates(lr, tuple(v if a.varies else fixed for a, fixed, v in shares))
        kept = [tensor for part in self.parts for tensor in part.tensors]
        foreach_copy_(kept, [tensor for part in parts for tensor in part.tensors])

    def _body(self) -> StepResult:
        return self.step(self.parts, self.rates)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """On the stream that records later: after what is queued, before what will be."""
        if self.stream is None:
            yield
            return
        now = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            yield
        now.wait_stream(self.stream)

    def _refuse(self, why: str) -> None:
        self.refused = True
        self.log(f"train.graph: off from here, because {why}")
