"""cbdm train, python -m cbdm_scale.train: read the options, then one call (runs/launch.py)."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.cli.signals import exit_status
from cbdm_scale.config.presets import PUBLISHED, PublishedSet
from cbdm_scale.config.run_options import (
    RUN_PARTS,
    RUN_SHORT,
    Parsed,
    RunOptions,
    parse_run,
    resolve,
)
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest, dataset_folder
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.tracking.log_evaluation import run_id_of
from cbdm_scale.tracking.runs import ui_command

if TYPE_CHECKING:
    from cbdm_scale.pretrained.finetune import InitFrom

COMMAND = Command(
    name="train",
    about="Train a class-balancing diffusion model. The same command continues its run.",
    parts=RUN_PARTS,
    short=RUN_SHORT,
)


def parse(argv: Sequence[str]) -> Parsed:
    """What was typed; --help shows the defaults of the preset that is named."""
    return parse_run(COMMAND.read(argv, lambda typed: [parse_run(typed).base, RunOptions()]))


def with_init_from(parsed: Parsed) -> "tuple[Parsed, InitFrom | None]":
    """The options with the defaults of the network that --init-from names, and that network.

    Wrong values are found before it is looked for.
    """
    init_from = parsed.typed.get("init_from", "")
    if not init_from:
        resolve(parsed.config)
        return parsed, None
    parsed.check_values()
    from cbdm_scale.pretrained.finetune import inherit_network, load_init_from

    init = load_init_from(init_from, parsed.value("cluster.storage"), parsed.value("name"))
    base = inherit_network(parsed.base, init, parsed.typed, parsed.chosen)
    return replace(parsed, base=base), init


@main_of
def main(argv: Sequence[str]) -> int:
    """Train, or print what would be trained. The exit status."""
    parsed = parse(argv)
    with parsed.naming_the_file():
        return start(parsed)


def start(parsed: Parsed) -> int:
    """What was typed, done. The exit status."""
    parsed, init = with_init_from(parsed)
    config = resolve(parsed.config)
    for note in parsed.notes:
        print(note)
    if parsed.typed.get("dry_run"):
        print_dry_run(config, init, parsed)
        return 0
    from cbdm_scale.runs.launch import launch_run

    outcome = launch_run(config, init_from=init, chosen=parsed.chosen)
    print_outcome(outcome["config"], outcome)
    return 0 if outcome["how"] == "finished" else exit_status(outcome["signal"])


def print_dry_run(config: Config, init: "InitFrom | None", parsed: Parsed) -> None:
    """The resolved configuration and what follows from it. Nothing is written.

    Of a published data set that is not there yet, its classes and sizes are known.
    """
    from cbdm_scale.pretrained.finetune import resolve_init_from, write_initial_weights
    from cbdm_scale.runs.estimate import disk_megabytes, estimate_time, short_run_warnings
    from cbdm_scale.runs.launch import (
        describe,
        extractor_problem,
        find_reference_warning,
        prepare_data,
    )

    lines, warnings = [], short_run_warnings(config)
    published = PUBLISHED.get(config.dataset)
    images: Manifest | PublishedSet
    folder = Storage(dataset_folder(config.data.root, config.dataset))
    if published and config.dataset != "digits_lt" and not folder.exists() and not init:
        images = published
        lines = [f"note: {folder.url} is not there yet; these are the published numbers", ""]
    else:
        manifest = prepare_data(config, write=False)
        if init:
            config, lines = resolve_init_from(config, init, manifest, chosen=parsed.chosen)
            lines += [*write_initial_weights(config, init, manifest, write=False), ""]
        warnings.insert(0, find_reference_warning(config, manifest))
        if folder.exists() and config.dataset != "digits_lt":  # theirs is made by training
            warnings.insert(0, extractor_problem(config, manifest))
        images = manifest
    for option, value in config.flat().items():
        print(f"{option} = {value}")
    print("", *lines, *(f"warning: {text}" for text in warnings if text), sep="\n")
    numbers = describe(config, images)
    numbers["run megabytes at most"] = disk_megabytes(config, numbers["checkpoint megabytes"])
    numbers |= estimate_time(config, images)
    for name, number in numbers.items():
        print(f"{name}: {number:,.1f}" if isinstance(number, float) else f"{name}: {number}")


def print_outcome(config: Config, outcome: dict[str, Any]) -> None:
    """Last and short: where the run is, its numbers, the next command."""
    run, uri = Storage(config.cluster.storage).child(config.run_name), outcome["uri"]
    progress = outcome["progress"]
    print(f"\nrun      {run.url} ({outcome['how']} at {progress['num_seen']:,} images)")
    if progress["skipped_steps"] or sum(progress["substitutions"]):
        print(
            f"mended   {progress['skipped_steps']} steps skipped, "
            f"{sum(progress['substitutions'])} damaged images replaced"
        )
    if outcome["how"] == "stopped":
        print("next     the same command goes on from here")
        return
    if outcome["warning"]:
        print(f"warning  {outcome['warning']}")
    for omega, values in outcome["scores"].items():
        by_group = " ".join(
            f"{group} {values[f'fid_{group}']:.1f}"
            for group in ("many", "medium", "few")
            if f"fid_{group}" in values
        )
        fidelity = f", label kept {values['fidelity']:.0%}" if "fidelity" in values else ""
        print(f"FID      {values['fid']:.1f} ({by_group}){fidelity} at omega {omega}")
    for line in outcome["remarks"]:
        print(line)
    if config.train.sample_every:
        print(f"samples  {run.path(RunDir.grid(progress['num_seen']))}")
    print(f"charts   {ui_command(uri, run_id_of(run))}")
    if outcome["unsent"]:
        print(f"waiting  {outcome['unsent']} records for MLflow. {outcome['why']}")
        print("         The same command sends them.")
    then = "sample" if config.eval.extractor == "none" else "evaluate"
    print(f"next     {shlex.join([*prog_of(then).split(), '--run', run.url])}")


if __name__ == "__main__":
    sys.exit(main())
