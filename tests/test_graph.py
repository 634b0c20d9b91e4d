"""The plumbing of a recorded step, on a CPU: what is replayed is the function itself.

tests/test_gpu_training.py records it.
"""

from dataclasses import replace

import pytest
import torch
from training_tools import (
    ALL_FURTHER_TERMS,
    BATCH,
    CONFIG,
    DISTILLED,
    fresh_state,
    make_batch,
    make_batches,
    make_callbacks,
    make_inputs,
    on_device,
    tensors,
)

from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.distributed import World
from cbdm_scale.training.graph import WARM_UP, GraphedStep, graphed
from cbdm_scale.training.loop import train
from cbdm_scale.training.power_ema import pack, start_averages
from cbdm_scale.training.step import TrainStep

STEPS = WARM_UP + 4
CPU = torch.device("cpu")


def steps_of(wrap, *, objective, ramp=0.0, sizes=(BATCH,) * STEPS, micro_batch=0):
    """The state and the norms after steps of so many images, taken by ``wrap(step)``."""
    state, inputs = fresh_state(objective=objective), make_inputs(objective=objective)
    state.ema.ramp, state.ema.varies = ramp, ramp > 0
    state.posthoc = start_averages(state.net, wanted=True)
    step = TrainStep(state, state.net, inputs.loss, CONFIG, World())
    take, first, norms = wrap(step), 0, []
    for size in sizes:
        batch = make_batch(torch.arange(first, first + size))
        parts = on_device(batch, inputs.draw, micro_batch=micro_batch)
        norms.append(take(parts, step.rates(first)).norm.item())
        first += BATCH
    return tensors(state) | pack(state.posthoc), norms


class Recorder:
    """In the place of `record`: what it gives runs the recorded call again."""

    def __init__(self, error=None):
        self.recorded, self.replayed, self.error = 0, 0, error

    def __call__(self, call, stream):
        if self.error:
            raise self.error
        self.recorded += 1

        def replay():
            self.replayed += 1
            return call()

        return replay


def assert_close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=name)


OBJECTIVES = {
    "ddpm": LossConfig(name="ddpm"),
    "cbdm, half": LossConfig(reg_share=0.5),
    "tcfg": LossConfig(tcfg=True),
    "distilled": DISTILLED,
    "further": ALL_FURTHER_TERMS,
}


@pytest.mark.parametrize("ramp", [0.0, 0.5])
@pytest.mark.parametrize("micro_batch", [0, 4])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_recorded_step_does_what_the_step_does(objective, micro_batch, ramp):
    """Batch, draws, the rising learning rate and the averages' decays reach the graph."""
    recorder, options = Recorder(), {"ramp": ramp, "micro_batch": micro_batch}
    plain, norms = steps_of(lambda step: step, objective=objective, **options)
    found, its_norms = steps_of(
        lambda step: GraphedStep(step, CPU, pytest.fail, recorder),
        objective=objective,
        **options,
    )
    assert (recorder.recorded, recorder.replayed) == (1, STEPS - WARM_UP)
    assert its_norms == pytest.approx(norms, rel=1e-4)
    assert_close(found, plain)


@pytest.mark.parametrize("changes_at", [1, WARM_UP + 2])
def test_steps_of_other_shapes_are_taken_as_they_are_from_there(changes_at):
    sizes = [BATCH] * changes_at + [BATCH // 2] * (STEPS - changes_at)
    said, objective = [], LossConfig()
    found, _ = steps_of(
        lambda step: GraphedStep(step, CPU, said.append, Recorder()),
        objective=objective,
        sizes=sizes,
    )
    (line,) = said
    assert line.startswith("train.graph: off from here, because the shapes of a step changed")
    assert_close(found, steps_of(lambda step: step, objective=objective, sizes=sizes)[0])


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is():
    said, objective = [], LossConfig()
    recorder = Recorder(RuntimeError("operation not permitted\nwhen stream is capturing"))
    found, _ = steps_of(
        lambda step: GraphedStep(step, CPU, said.append, recorder), objective=objective
    )
    assert said == ["train.graph: off from here, because operation not permitted"]
    assert_close(found, steps_of(lambda step: step, objective=objective)[0])


def test_too_little_memory_for_a_graph_is_no_reason_to_go_on():
    recorder = Recorder(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        steps_of(
            lambda step: GraphedStep(step, CPU, pytest.fail, recorder), objective=LossConfig()
        )


class Gpus(World):
    """So many of them, in name."""

    def __init__(self, size):
        self.device, self.size = torch.device("cuda"), size


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_cpu_takes_steps_as_they_are_without_a_word(choice):
    config = replace(CONFIG, graph=choice)
    assert graphed("step", config, World(), pytest.fail) == "step"


def test_several_gpus_are_told_why_there_is_no_graph():
    said = []
    assert graphed("step", CONFIG, Gpus(4), said.append) == "step"
    assert said == ["train.graph: off, because 4 GPUs average their gradients within a step"]
    assert graphed("step", replace(CONFIG, graph="off"), Gpus(4), pytest.fail) == "step"


def test_a_graph_that_is_asked_for_and_cannot_be_is_an_error():
    config = replace(CONFIG, graph="on")
    with pytest.raises(
        ValueError, match=r"train.graph \(on\).* on cpu.*Try --train.graph auto"
    ):
        inputs = make_inputs(make_batches())
        train(fresh_state(), inputs, config, World(), make_callbacks())
    with pytest.raises(ValueError, match=r"train.graph \(on\).* 2 GPUs"):
        graphed("step", config, Gpus(2), pytest.fail)
