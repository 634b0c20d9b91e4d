"""cbdm export: find the network, write the folder, check it, say how it went."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.pretrained.options import NetworkOptions
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import Folder, absolute_paths
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.options import check_source

if TYPE_CHECKING:  # torch waits until the options are known to be right
    from cbdm_scale.evaluation.results import Evaluation
    from cbdm_scale.pretrained.network import PretrainedNetwork

WEIGHTS, CONFIG, CARD = RunDir.MODEL, RunDir.CONFIG, "README.md"
DIFFUSERS, PROGRAM = "diffusers", "denoiser.pt2"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(NetworkOptions):
    """Which network, and where it is written to."""

    out: Folder = ""
    """Folder that it is written to; one that is not there yet, or is empty."""

    program: bool = False
    """Also the denoiser as one file of torch.export (denoiser.pt2), which runs without this
    package: in a process of torch alone, in C++ (AOTInductor), by what reads its graphs."""


COMMAND = Command(
    name="export",
    about="Write a trained network as safetensors, with its card, and for diffusers.",
    parts=(ExportOptions(),),
    short={
        "network": ("run", "weights", "resolution", "data.root", "track.uri"),
        "what is written": ("out", "program"),
    },
)


def find_evaluation(
    pretrained: "PretrainedNetwork", weights: str
) -> tuple["Evaluation | None", list[str]]:
    """The newest evaluation of this checkpoint and these weights, None if there is none.

    By the command, or else during training. And notes: of those that cannot be read, as they
    are damaged or of another version.
    """

    from cbdm_scale.evaluation.store import read_evaluations

    if not pretrained.folder:
        return None, []
    stored, problems = read_evaluations(Storage(f"{pretrained.folder}/{RunDir.EVALUATION}"))
    notes = [f"note: left out of the card: {problem}" for problem in problems]
    found = [
        one.evaluation
        for one in stored
        if (one.evaluation.weights, one.evaluation.trained_images)
        == (weights, pretrained.num_seen)
    ]
    return found[-1] if found else None, notes


def config_json(pretrained: "PretrainedNetwork") -> dict[str, object]:
    """The run's configuration as a run keeps it, without the folders it was made in."""
    about = json.loads(json.dumps(asdict(pretrained.config)))
    about["image"] = {
        "channels": pretrained.spec.channels,
        "size": pretrained.spec.image_size,
        "num_classes": pretrained.spec.num_classes,
        "fingerprint": pretrained.fingerprint,
    }
    about["classes"] = list(pretrained.class_names)
    about["data"]["root"] = about["cluster"]["storage"] = about["track"]["uri"] = ""
    about["init_from"] = ""
    return dict(about)


def export(
    pretrained: "PretrainedNetwork",
    real: Manifest | None,
    evaluation: "Evaluation | None",
    to: Path,
    *,
    program: bool = False,
) -> dict[str, list[str]]:
    """Write the folder; lines about what is in it for others: file or folder -> lines."""
    from cbdm_scale.evaluation.model_card import write_card
    from cbdm_scale.pretrained.export_diffusers import (
        check_diffusers,
        write_diffusers,
        write_json,
    )
    from cbdm_scale.pretrained.export_program import write_program

    to.mkdir(parents=True, exist_ok=True)
    (to / WEIGHTS).write_bytes(pretrained.weights)
    for_others: dict[str, list[str]] = {}
    try:
        lines = write_diffusers(pretrained, to / DIFFUSERS)
    except ValueError as error:
        lines = [f"not written: {error}"]
    else:
        lines.append(check_diffusers(pretrained, to / DIFFUSERS))
    for_others[f"{DIFFUSERS}/"] = lines
    if program:
        for_others[PROGRAM] = write_program(pretrained, to / PROGRAM)
    (to / CARD).write_text(write_card(pretrained, real, evaluation, for_others))
    write_json(to / CONFIG, config_json(pretrained))  # last: now it is whole
    return for_others


def start(options: ExportOptions) -> int:
    """Check, export, and say how it went. The exit status."""
    check_source(options.run, options.weights)
    if not options.out:
        raise ValueError("out is missing. Give --out the folder that is to be written.")
    to = Path(options.out).expanduser()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"out ({to}) is there already, not empty. Give --out another folder.")
    from cbdm_scale.pretrained.network import find_training_data

    pretrained = options.load()
    real, _ = find_training_data(pretrained, options.data.root)
    evaluation, notes = find_evaluation(pretrained, options.weights)
    for note in (*pretrained.notes, *notes):
        print(note)
    for_others = export(pretrained, real, evaluation, to, program=options.program)
    print(f"network    {pretrained.url}\nmodel      {to / WEIGHTS}")
    print(
        f"card       {to / CARD}" + ("" if evaluation else ", without metrics: not evaluated")
    )
    for name, lines in for_others.items():
        title = name.partition(".")[0].rstrip("/")
        print("\n".join(f"{title:<10} {line}" for line in lines))
    return 0


@main_of
def main(argv: Sequence[str]) -> int:
    """Write the folder that the options name. The exit status."""
    return start(absolute_paths(with_values(ExportOptions(), COMMAND.read(argv))))


if __name__ == "__main__":
    sys.exit(main())
