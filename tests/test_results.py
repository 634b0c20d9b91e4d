import dataclasses
import json

import pytest
import torch

from cbdm_scale.evaluation.results import Evaluation, Missing, SetResult, from_json, to_json
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import LabelledFeatures, class_table


def example() -> Evaluation:
    """Two classes, one set, some numbers missing."""
    labels = torch.arange(120) % 2
    features = LabelledFeatures(torch.randn(120, 4), labels, hits=labels == 0)
    found = SetResult(
        images="samples/a",
        omega=1.0,
        guidance_mode="cfg",
        num_images=120,
        fid=Interval(1.5, 1.0, 2.0),
        kid=None,
        inception_score=None,
        precision=0.5,
        recall=0.25,
        density=1.5,
        coverage=0.75,
        f8=0.9,
        f_eighth=0.8,
        prd_note="4 clusters",
        prd_precision=(0.0, 1.0),
        prd_recall=(1.0, 0.0),
        fidelity=Interval(0.5, 0.4, 0.6),
        table=class_table(features, features, [200, 10]),
        memorisation=(GroupMemorisation(None, 120, 1.0, 0.0),),
        missing=(Missing("kid", "a reason"),),
    )
    return Evaluation(
        id="a1b2",
        run="digits",
        checkpoint="runs/digits/checkpoints/000000000048",
        trained_images=48,
        dataset="digits_lt",
        dataset_fingerprint="f",
        class_names=("0", "1"),
        extractor="classifier",
        extractor_fingerprint="e",
        resize="bilinear",
        num_real=120,
        held_out_copies=(),
        sets=(found, dataclasses.replace(found, omega=2.0, fid=Interval(1.0, 0.5, 1.5))),
    )


def test_an_evaluation_comes_back_from_its_text_as_it_was():
    evaluation = example()
    assert from_json(to_json(evaluation)) == evaluation


def test_the_best_set_has_the_smallest_fid_and_none_without_fid():
    evaluation = example()
    assert evaluation.best.omega == 2.0
    without = tuple(dataclasses.replace(s, fid=None) for s in evaluation.sets)
    assert dataclasses.replace(evaluation, sets=without).best.omega == 1.0


@pytest.mark.parametrize("change", [{"format": 1}, {"sets": 3}, {"dataset": None, "run": None}])
def test_a_text_of_another_version_is_an_error(change):
    data = json.loads(to_json(example())) | change
    if change.get("run", 1) is None:
        del data["run"]
    with pytest.raises(ValueError, match="damaged or of another version"):
        from_json(json.dumps(data))
