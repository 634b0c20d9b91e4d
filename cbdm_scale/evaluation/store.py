"""Where evaluations are stored: read and written here, whoever made them.

    <run>/evaluation/<id>/metrics.json    ``Evaluation``
    <run>/evaluation/<id>/classes.csv     a line for each class and strength, for spreadsheets
    <run>/evaluation/<id>/about.json      of the command alone: when, and by which words

The id of an evaluation during training is <checkpoint>-training, of one by the command
<checkpoint>-<digest of all that decides its numbers>.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cbdm_scale.evaluation.results import FORMAT, Evaluation, SpaceResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import parse_json, structure
from cbdm_scale.storage.run_dir import RunDir

METRICS, ABOUT, CLASSES = "metrics.json", "about.json", "classes.csv"
CSV_COUNTS = "num_train", "num_real", "num_fake"
CSV_SCORES = "fid", "kid", "fidelity", "sliced_wasserstein", "fld"


def to_json(evaluation: Evaluation) -> str:
    """The text of metrics.json; an end of an interval that is not known (nan) is null."""
    tree = dataclasses.asdict(evaluation, dict_factory=_without_nan)
    return json.dumps(tree, indent=1, allow_nan=False)


def _without_nan(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in pairs}


def classes_csv(evaluation: Evaluation) -> str:
    """Classes and strengths as comma-separated values; what is not known is empty.

    Of several feature spaces the first column names the extractor.
    """
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    several = len(evaluation.spaces) > 1
    ends = [f"{name}{end}" for name in CSV_SCORES for end in ("", "_low", "_high")]
    heads = ["guidance", "label", "class", "group", *CSV_COUNTS, *ends]
    write(["extractor", *heads] if several else heads)
    for space in evaluation.spaces:
        for line in _class_lines(space, evaluation.class_names):
            write([space.extractor, *line] if several else line)
    return text.getvalue()


def _class_lines(space: SpaceResult, class_names: Sequence[str]) -> Iterator[list[Any]]:
    for found in space.sets:
        for row in found.table.classes:
            known = [getattr(row, name) or Interval(math.nan) for name in CSV_SCORES]
            numbers = [n for score in known for n in (score.value, score.low, score.high)]
            name = class_names[row.label] if row.label is not None else ""
            about = [found.omega, row.label, name, row.group]
            about += [getattr(row, n) for n in CSV_COUNTS]
            yield [*about, *("" if math.isnan(n) else n for n in numbers)]


def from_json(text: str) -> Evaluation:
    """The evaluation that ``to_json`` wrote; ValueError if damaged or of another format."""
    try:
        data = parse_json(text, "it")
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, this version reads {FORMAT}")
        found: Evaluation = structure(Evaluation, data, "")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{METRICS} is damaged or of another version: {error!r}") from error


@dataclass(frozen=True)
class Stored:
    """An evaluation of the store."""

    home: Storage
    evaluation: Evaluation
    made: float
    """Seconds since 1970, of the command; 0 for one during training."""


def training_home(run: Storage, num_seen: int) -> Storage:
    """Where a run's evaluation after so many images stands."""
    return run.child(RunDir.training_evaluation(num_seen))


def read_evaluation(home: Storage) -> Evaluation | None:
    """The evaluation of a folder; None if there is none, ValueError if it is damaged."""
    if not home.exists(METRICS):
        return None
    try:
        return from_json(home.read_text(METRICS))
    except ValueError as error:
        raise ValueError(
            f"{home.path(METRICS)}: {error}. Remove the folder and type the same command "
            "again: images and features are stored."
        ) from error


def write_evaluation(
    home: Storage, evaluation: Evaluation, about: dict[str, Any] | None = None
) -> None:
    """Store an evaluation; ``about``: when the command made it ("made"), and by which words."""
    home.write_bytes(METRICS, to_json(evaluation).encode())
    if any(found.table.classes for found in evaluation.sets):
        home.write_bytes(CLASSES, classes_csv(evaluation).encode())
    if about is not None:
        home.write_json(ABOUT, about)


def read_evaluations(folder: Storage) -> tuple[list[Stored], list[str]]:
    """All evaluations of a folder, the newest last, and what is wrong with unreadable ones.

    Those during training come before those by command, in order of images.
    """
    found, problems = [], []
    for name in folder.list():
        home = folder.child(name)
        if not home.exists(METRICS):
            continue
        try:
            evaluation = read_evaluation(home)
            about = home.read_json(ABOUT) if home.exists(ABOUT) else {}
            made: float = structure(float, about.get("made", 0), f"{home.path(ABOUT)}: made")
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if evaluation:
            found.append(Stored(home, evaluation, made))
    return sorted(found, key=lambda one: one.made), problems


def training_evaluations(run: Storage, after: int = -1) -> dict[int, Evaluation]:
    """Those that training made: images seen -> evaluation, in order of images.

    after: those of no more images are not read.
    """
    seen = [images for images in RunDir(run).training_evaluations() if images > after]
    found = {images: read_evaluation(training_home(run, images)) for images in seen}
    return {images: evaluation for images, evaluation in found.items() if evaluation}
