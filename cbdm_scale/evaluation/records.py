"""Evaluations on disk, and which one of another run compares with this one.

<evaluations>/<id>/metrics.json    ``Evaluation``, written first
<evaluations>/<id>/about.json      when, by which command, of which weights, written second
<evaluations>/<id>/report.html     and its pictures
<evaluations>/<id>/report.json     which they are, and what the report compares with
<evaluations>/<id>/mlflow.json     the MLflow run that has it all
"""

import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cbdm_scale.evaluation import summary
from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.pictures import report_images
from cbdm_scale.evaluation.results import Evaluation, from_json, to_json
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking import log_results, run_id_of

METRICS = "metrics.json"
ABOUT = "about.json"
REPORT = "report.html"
REPORT_LIST = "report.json"
MLFLOW = "mlflow.json"
PROG = "python -m cbdm_scale.evaluate"


def read(home: Storage) -> Evaluation | None:
    """What was found before; None if nothing was, ValueError if the file is damaged."""
    if not home.exists(METRICS):
        return None
    try:
        return from_json(home.read_text(METRICS))
    except ValueError as error:
        raise ValueError(
            f"{home.path(METRICS)}: {error}. Remove the folder and type the same command "
            "again: images and features are records."
        ) from error


def write(home: Storage, evaluation: Evaluation, weights: str, argv: Sequence[str]) -> None:
    home.write_bytes(METRICS, to_json(evaluation).encode())
    command = " ".join([PROG, *map(shlex.quote, argv)])
    home.write_json(ABOUT, {"made": time.time(), "command": command, "weights": weights})


def write_report_files(
    home: Storage, inputs: Inputs, evaluation: Evaluation, against: Evaluation | None
) -> None:
    """The page, its pictures, and last the list of them."""
    from cbdm_scale.evaluation.report.page import write_report

    pictures = report_images(inputs, evaluation)
    with tempfile.TemporaryDirectory(prefix="cbdm-report-") as scratch:
        files = write_report(evaluation, pictures, Path(scratch), against)
        names = [file.relative_to(scratch).as_posix() for file in files]
        for name, file in zip(names, files, strict=True):
            home.write_bytes(name, file.read_bytes())
    home.write_json(REPORT_LIST, {"against": _word(against), "files": names})


def has_report(home: Storage, against: Evaluation | None) -> bool:
    """Whether the report there compares with this evaluation."""
    return home.exists(REPORT_LIST) and (
        home.read_json(REPORT_LIST)["against"] == _word(against)
    )


def _word(against: Evaluation | None) -> str:
    return f"{against.run}/{against.id}" if against else ""


def log(home: Storage, inputs: Inputs, evaluation: Evaluation) -> str:
    """All of it into the run's MLflow run, once; why not, or "" if it is there.

    A network that has no MLflow run is left alone.
    """
    origin = inputs.origin
    run_id = run_id_of(Storage(origin.folder)) if origin.folder else ""
    report = home.read_json(REPORT_LIST)
    known = {"run_id": run_id, "against": report["against"]}
    if not run_id or (home.exists(MLFLOW) and home.read_json(MLFLOW) == known):
        return ""
    files = {name: home.read_bytes(name) for name in (METRICS, *report["files"])}
    files["per_class.json"] = summary.per_class(evaluation).encode()
    reason = log_results(
        Storage(origin.folder),
        inputs.options.tracking_uri or origin.config.track.uri,
        evaluation.trained_images or 0,
        # A new report of old numbers has the numbers there already.
        {} if home.exists(MLFLOW) else summary.metrics(evaluation, inputs.options.weights),
        files,
        f"evaluation/{evaluation.id}",
    )
    if not reason:
        home.write_json(MLFLOW, known)
    return reason


def find_against(inputs: Inputs) -> Evaluation | None:
    """The newest evaluation of the other run with these real images, extractor and number.

    Of the same weights (ema, raw, an average of some width) if there is one, else of ema.
    """
    other = inputs.options.against
    if not other:
        return None
    try:
        theirs = load_pretrained(other)
    except ValueError as error:
        raise ValueError(f"against: {error}") from error
    if theirs.fingerprint != inputs.real.fingerprint:
        raise ValueError(
            f"against ({other}) learnt from {theirs.config.dataset or 'something'} "
            f"({theirs.fingerprint or 'not known'}), this run from {inputs.real.name} "
            f"({inputs.real.fingerprint}). Choose a run on the same data set."
        )
    found = [
        (weights == inputs.options.weights, made, evaluation)
        for made, weights, evaluation in _evaluations(Storage(f"{theirs.folder}/evaluation"))
        if weights in ("ema", inputs.options.weights) and _comparable(evaluation, inputs)
    ]
    if not found:
        raise ValueError(
            f"against ({other}) has no evaluation with extractor {inputs.options.extractor} "
            f"({inputs.options.resize}) and {inputs.num_images:,} images. Make it with: "
            f"{_command(inputs, other)}"
        )
    return max(found, key=lambda row: row[:2])[2]


def _evaluations(folder: Storage) -> list[tuple[float, str, Evaluation]]:
    """(when it was made, of which weights, evaluation) of all that can be read."""
    found = []
    for name in folder.list():
        home = folder.child(name)
        try:
            evaluation = read(home)
            about = home.read_json(ABOUT) if home.exists(ABOUT) else {}
            row = float(about.get("made", 0)), str(about.get("weights", "ema"))
        except (ValueError, KeyError, OSError):
            continue
        if evaluation:
            found.append((*row, evaluation))
    return found


def _comparable(evaluation: Evaluation, inputs: Inputs) -> bool:
    return (
        evaluation.dataset_fingerprint == inputs.real.fingerprint
        and evaluation.extractor_fingerprint == inputs.recipe.fingerprint
        and all(found.num_images == inputs.num_images for found in evaluation.sets)
    )


def _command(inputs: Inputs, other: str) -> str:
    """What evaluates the other run as this one is evaluated."""
    options, usual = inputs.options, EvaluateOptions()
    words = ["--run", other, "--num-images", str(inputs.num_images)]
    words += ["--guidance", options.guidance]
    for name in ("extractor", "extractor_weights", "resize", "data_root"):
        if (value := getattr(options, name)) != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if options.allow_weights:
        words.append("--allow-weights")
    return " ".join([PROG, *map(shlex.quote, words)])
