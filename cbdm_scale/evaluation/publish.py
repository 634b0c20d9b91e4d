"""What the evaluate command makes of an evaluation: the report, and the run's MLflow.

<evaluation>/report.html     and its pictures
<evaluation>/report.json     which they are, and what the report compares with
<evaluation>/mlflow.json     the MLflow run that has it all
"""

import math
import shlex
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.cautions import REFERENCE_TAG, reference_warning_of
from cbdm_scale.evaluation.inputs import Inputs
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.evaluation.store import (
    CLASSES,
    METRICS,
    read_evaluation,
    read_evaluations,
    training_home,
)
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.storage.wording import prog_of
from cbdm_scale.tracking.log_evaluation import log_results, run_id_of

REPORT = "report.html"
REPORT_LIST = "report.json"
MLFLOW = "mlflow.json"


@dataclass(frozen=True, kw_only=True)
class _Report:
    """The content of report.json."""

    against: str
    """RUN/ID of the evaluation that the report compares with; "" for none."""
    files: tuple[str, ...]


def write_report_files(
    home: Storage, inputs: Inputs, evaluation: Evaluation, against: Evaluation | None
) -> None:
    """The page, its pictures, and last the list of them."""
    from cbdm_scale.evaluation.report.images import report_images
    from cbdm_scale.evaluation.report.page import write_report

    pictures = report_images(inputs, evaluation)
    with tempfile.TemporaryDirectory(prefix="cbdm-report-") as scratch:
        files = write_report(evaluation, pictures, Path(scratch), against)
        names = [file.relative_to(scratch).as_posix() for file in files]
        for name, file in zip(names, files, strict=True):
            home.write_bytes(name, file.read_bytes())
    home.write_json(REPORT_LIST, asdict(_Report(against=_name(against), files=tuple(names))))


def has_report(home: Storage, against: Evaluation | None) -> bool:
    """Whether the report there compares with this evaluation."""
    return home.exists(REPORT_LIST) and (
        home.read_json(REPORT_LIST, _Report).against == _name(against)
    )


def _name(against: Evaluation | None) -> str:
    return f"{against.run}/{against.id}" if against else ""


def log_to_mlflow(home: Storage, inputs: Inputs, evaluation: Evaluation) -> str:
    """All of it into the run's MLflow run, once; why not, or "" if it is there.

    A network that has no MLflow run is left alone.
    """
    pretrained = inputs.pretrained
    if is_logged(home, inputs):
        return ""
    report: _Report = home.read_json(REPORT_LIST, _Report)
    names = [METRICS, *report.files, *([CLASSES] if home.exists(CLASSES) else [])]
    files = {name: home.read_bytes(name) for name in names}
    reason = log_results(
        Storage(pretrained.folder),
        inputs.options.track.uri or pretrained.config.track.uri,
        evaluation.trained_images or 0,
        # A new report of old numbers has the numbers there already.
        {} if home.exists(MLFLOW) else _new_numbers(evaluation, pretrained),
        files,
        f"evaluation/{evaluation.id}",
        {REFERENCE_TAG: warning} if (warning := reference_warning_of(evaluation)) else {},
    )
    if not reason:
        home.write_json(MLFLOW, _logged(home, inputs))
    return reason


def is_logged(home: Storage, inputs: Inputs) -> bool:
    """Whether the run's MLflow run, if it has any, has the report that is there."""
    known = _logged(home, inputs)
    return not known["run_id"] or (home.exists(MLFLOW) and home.read_json(MLFLOW) == known)


def _logged(home: Storage, inputs: Inputs) -> dict[str, str]:
    """The content of mlflow.json once all is there."""
    folder = inputs.pretrained.folder
    report: _Report = home.read_json(REPORT_LIST, _Report)
    return {"run_id": run_id_of(Storage(folder)) if folder else "", "against": report.against}


def _new_numbers(evaluation: Evaluation, pretrained: PretrainedNetwork) -> dict[str, float]:
    """What training has not logged of the same checkpoint: a chart has each number once."""
    numbers = evaluation.metrics(pretrained.config.eval)
    known: dict[str, float] = {}
    if pretrained.num_seen is not None:
        home = training_home(Storage(pretrained.folder), pretrained.num_seen)
        if found := read_evaluation(home):
            known = found.metrics(pretrained.config.eval)
    return {
        name: value
        for name, value in numbers.items()
        if not math.isclose(known.get(name, math.inf), value, rel_tol=1e-4)
    }


def find_against(inputs: Inputs) -> Evaluation | None:
    """The newest evaluation of the other run with these real images, extractor and number.

    Made by the command; of the same weights (ema, raw, an average of some width) if there is
    one, else of ema.
    """
    other, options = inputs.options.against, inputs.options
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
    stored, _ = read_evaluations(Storage(f"{theirs.folder}/{RunDir.EVALUATION}"))
    found = [
        one.evaluation
        for one in stored
        if one.evaluation.made_by == "command"
        and one.evaluation.weights in ("ema", options.weights)
        and _comparable(one.evaluation, inputs)
    ]
    if not found:
        raise ValueError(
            f"against ({other}) has no evaluation with extractor {options.extractor[0]} "
            f"({options.resize}) and {inputs.num_images:,} images. Make it with: "
            f"{_command(inputs, other)}"
        )
    same = [evaluation for evaluation in found if evaluation.weights == options.weights]
    return (same or found)[-1]


def _comparable(evaluation: Evaluation, inputs: Inputs) -> bool:
    return (
        evaluation.dataset_fingerprint == inputs.real.fingerprint
        and evaluation.extractor_fingerprint == inputs.recipes[0].fingerprint
        and all(found.num_images == inputs.num_images for found in evaluation.sets)
    )


def _command(inputs: Inputs, other: str) -> str:
    """What evaluates the other run as this one is evaluated."""
    options, usual = inputs.options, EvaluateOptions()
    words = ["--run", other, "--num-images", str(inputs.num_images)]
    words += ["--guidance", *map(as_text, options.guidance)]
    for name in ("extractor", "extractor_weights", "resize"):
        if (value := getattr(options, name)) != getattr(usual, name):
            several = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *several]
    if options.data.root:
        words += ["--data.root", options.data.root]
    if options.allow_weights:
        words.append("--allow-weights")
    return " ".join([prog_of("evaluate"), *map(shlex.quote, words)])
