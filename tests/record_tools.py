"""Records of evaluations during training, from scores alone."""

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.evaluation.store import training_home, write_evaluation
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.per_class import ClassScore, ClassTable

STORED = 150
"""Images of a group that its recall is of."""


def training_record(num_seen, scores, key="", run="noise") -> Evaluation:
    """scores: guidance strength as text -> name -> value, as ``Evaluation.scores`` has them."""
    return Evaluation(
        id=f"{num_seen:012d}-training",
        run=run,
        checkpoint=f"checkpoints/{num_seen:012d}",
        trained_images=num_seen,
        dataset="digits_lt",
        dataset_fingerprint="f",
        class_names=tuple(map(str, range(10))),
        extractor="classifier",
        extractor_fingerprint="e",
        resize="bilinear",
        num_real=1797,
        held_out_copies=(),
        sets=tuple(_set(float(omega), values) for omega, values in scores.items()),
        key=key,
        made_by="training",
    )


def write_training_record(run, num_seen, scores, key="") -> None:
    write_evaluation(training_home(run, num_seen), training_record(num_seen, scores, key))


def _set(omega, values) -> SetResult:
    def score(name):
        return Interval(values[name]) if name in values else None

    rows = [
        ClassScore(
            None,
            g,
            *(1, 1, 1, None),
            *(score(f"fid_{g}"), None, None, score(f"fidelity_{g}")),
            recall=values.get(f"recall_{g}"),
            recall_images=STORED if f"recall_{g}" in values else None,
        )
        for g in GROUPS
    ]
    return SetResult(
        images="",
        omega=omega,
        guidance_mode="cfg",
        num_images=30,
        fid=score("fid"),
        precision=values.get("precision"),
        recall=values.get("recall"),
        fidelity=score("fidelity"),
        table=ClassTable((), tuple(rows)),
    )
