"""What a training step of each method costs, in steps of the control: measured side by side.

The train loop itself, on the data set's images, some steps of one method after the other, round
by round; of the ratios to the control the median. On CPUs a second is one of the processor, so
that what else the machine does counts for nothing.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.runs.worker import build_state, make_inputs
from cbdm_scale.training.distributed import World
from cbdm_scale.training.loop import Callbacks, train

ROUNDS, FEWEST, MOST_S = 30, 5, 60.0
"""Rounds, where they take no longer than so many seconds; at least the fewest."""
STEPS = 2
"""Of each method in a round."""

Seconds = dict[str, float]
"""Row -> seconds of training on one image."""


def measure(
    configs: Mapping[str, Config],
    manifest: Manifest,
    device: torch.device,
    rounds: int = ROUNDS,
) -> list[Seconds]:
    """Seconds of an image's training by row, of each round."""
    steps = {name: stepper(config, manifest, device) for name, config in configs.items()}
    for step in steps.values():
        step()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    found: list[Seconds] = []
    began = time.perf_counter()
    while len(found) < rounds:
        if len(found) >= FEWEST and time.perf_counter() - began > MOST_S:
            break
        seconds = {}
        for name, step in steps.items():
            before = clock()
            step()
            images = STEPS * configs[name].train.batch_size
            seconds[name] = (clock() - before) / images
        found.append(seconds)
    return found


def ratios(found: list[Seconds], control: str) -> dict[str, float]:
    """Row -> the median over rounds of its seconds over the control's."""
    return {
        name: statistics.median(one[name] / one[control] for one in found) for name in found[0]
    }


def stepper(config: Config, manifest: Manifest, device: torch.device) -> Callable[[], None]:
    """Takes ``STEPS`` steps of a fresh network at each call; ends when the device has."""
    config = replace(config, train=replace(config.train, graph="off"))
    world, process = World(device), build_process(config.noise, device)
    state = build_state(config, manifest, device)
    inputs = make_inputs(config, manifest, process, world, 0)

    def step() -> None:
        total = state.progress.num_seen + STEPS * config.train.batch_size
        train(state, inputs, replace(config.train, total_images=total), world, SILENT)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


SILENT = Callbacks(
    report=lambda state, numbers: None,
    sample=lambda state: None,
    evaluate=lambda state: None,
    save=lambda state: None,
    keep_averages=lambda state: None,
    stop=lambda: False,
    save_now=lambda: False,
    log=lambda text: None,
)
