"""python -m cbdm_scale.train: parse, then one call (runs/launch.py)."""

import sys
from collections.abc import Sequence
from typing import Any

from cbdm_scale.config.preset_file import sampler_note
from cbdm_scale.config.schema import Config
from cbdm_scale.pretrained.finetune import Start, begin, named_start, settle
from cbdm_scale.runs.command_line import parse, resolve
from cbdm_scale.runs.launch import carry_out, describe, find_data
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import refuse_typed_passwords
from cbdm_scale.storage.run_dir import RunDir

NEXT_DATASET = "python -m data_prep cifar10-lt --source DIR --out ROOT"


def start(config: Config, origin: Start | None, argv: Sequence[str]) -> int:
    """A run, and how it went. The exit status."""
    outcome = carry_out(config, origin=origin, argv=argv)
    say_outcome(outcome["config"], outcome)
    return 0


def say_outcome(config: Config, outcome: dict[str, Any]) -> None:
    """Last and short: where the run is, its numbers, the next command."""
    from cbdm_scale import tracking

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
    print(f"samples  {run.path(RunDir.grid(progress['num_seen']))}")
    print(f"charts   {tracking.ui_command(uri)}")
    if outcome["unsent"]:
        print(f"waiting  {outcome['unsent']} records for MLflow; the same command sends them")
    if config.dataset == "digits_lt":
        print(f"next     {NEXT_DATASET}")


def main(argv: Sequence[str]) -> int:
    try:
        refuse_typed_passwords(argv)
        origin = named_start(argv)
        config, dry_run = parse(argv, origin)
        config = resolve(config)
        for note in sampler_note(argv, config):
            print(note)
        if dry_run:
            manifest = find_data(config, write=False)
            lines: list[str] = []
            if origin:
                config, lines = settle(config, origin, argv, manifest)
                lines += [*begin(config, origin, manifest, write=False), ""]
            for option, value in config.flat().items():
                print(f"{option} = {value}")
            print("", *lines, sep="\n")
            for name, number in describe(config, manifest).items():
                print(
                    f"{name}: {number:,.1f}"
                    if isinstance(number, float)
                    else f"{name}: {number}"
                )
            return 0
        return start(config, origin, argv)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
