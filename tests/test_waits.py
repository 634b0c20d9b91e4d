"""The train loop waits for the device at reports and checkpoints alone."""

from dataclasses import replace

import pytest
from training_tools import (
    ALL_FURTHER_TERMS,
    BATCH,
    CONFIG,
    DISTILLED,
    fresh_state,
    make_callbacks,
    make_inputs,
)
from wait_tools import DeviceReads

from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.distributed import World
from cbdm_scale.training.loop import train
from cbdm_scale.training.power_ema import start_averages

STEPS = 6


def lines_that_wait(objective=None, careless=lambda terms: None, **options):
    """The lines of a run's code that would wait for a GPU."""
    objective = objective or LossConfig()
    state = fresh_state(objective=objective)
    state.posthoc = start_averages(state.net, wanted=True)
    inputs = make_inputs(objective=objective)
    reads = DeviceReads([*state.net.parameters(), *state.ema.net.parameters()])

    def loss(net, x0, y, draws):
        drawn = (draws.t, draws.eps, draws.dropped, *draws.term_draws.values())
        reads.mark([x0, y, *drawn])
        terms = inputs.loss(net, x0, y, draws)
        careless(terms)
        return terms

    usual = {"total_images": STEPS * BATCH, "log_every": 1000 * BATCH}
    config = replace(CONFIG, **{**usual, **options})
    with reads.counted():
        train(state, replace(inputs, loss=loss), config, World(), make_callbacks())
    assert reads.steps == STEPS
    return reads.found


OBJECTIVES = [
    LossConfig(name="ddpm"),
    LossConfig(reg_share=0.5),
    LossConfig(tcfg=True),
    DISTILLED,
    ALL_FURTHER_TERMS,
]


@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=["ddpm", "cbdm, half", "cbdm and tcfg", "distilled", "further"]
)
def test_nothing_is_read_between_reports(objective, micro_batch):
    found = lines_that_wait(objective, micro_batch=micro_batch)
    assert found == ["return self.value.item()"]  # of the last step, when all is done


def test_a_report_reads_the_sums_and_the_norm():
    found = lines_that_wait(log_every=3 * BATCH)
    assert len(found) > 1


@pytest.mark.parametrize(
    "careless",
    [
        lambda terms: terms["total"].sum().item(),
        lambda terms: terms["total"].tolist(),
        lambda terms: bool(terms["total"].isfinite().all()),
        lambda terms: terms["total"][terms["total"] > 0],
        lambda terms: terms["total"].detach().cpu(),
    ],
    ids=["item", "tolist", "bool", "mask", "cpu"],
)
def test_careless_lines_are_seen(careless):
    """Or the test above would say nothing."""
    found = lines_that_wait(careless=careless)
    assert len([line for line in found if "lambda" in line]) == STEPS
