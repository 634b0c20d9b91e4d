import csv
import dataclasses
import json

import pytest
import torch
from record_tools import write_training_record

from cbdm_scale.evaluation.results import Evaluation, Missing, SetResult
from cbdm_scale.evaluation.store import (
    from_json,
    read_evaluations,
    to_json,
    training_evaluations,
    write_evaluation,
)
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import class_table
from cbdm_scale.metrics.reference import LabelledFeatures
from cbdm_scale.storage.folder import Storage


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


def test_a_strength_by_class_is_its_text_in_the_record():
    evaluation, omega = example(), "many=0.5,few=1"
    by_group = dataclasses.replace(evaluation.sets[0], omega=omega, fid=Interval(0.5))
    evaluation = dataclasses.replace(evaluation, sets=(*evaluation.sets, by_group))
    text = to_json(evaluation)
    assert [one["omega"] for one in json.loads(text)["sets"]] == [1.0, 2.0, omega]
    assert from_json(text) == evaluation and from_json(text).best.omega == omega
    assert list(evaluation.scores) == ["1.0", "2.0", omega]


def test_a_number_without_an_interval_comes_back_and_prints_alone():
    evaluation = example()
    alone = dataclasses.replace(evaluation.sets[0], fid=Interval(1.5))
    evaluation = dataclasses.replace(evaluation, sets=(alone,))
    text = to_json(evaluation)
    assert json.loads(text)["sets"][0]["fid"] == {"value": 1.5, "low": None, "high": None}
    assert from_json(text) == evaluation and str(from_json(text).sets[0].fid) == "1.5"
    assert alone.scores["fid"] == 1.5


def test_evaluations_are_found_the_newest_last_and_damaged_ones_are_named(tmp_path):
    run = Storage(str(tmp_path))
    folder = run.child("evaluation")
    for made, name in ((2.0, "48-b"), (1.0, "48-c")):
        write_evaluation(
            folder.child(name), dataclasses.replace(example(), id=name), {"made": made}
        )
    write_training_record(run, 48, {"1.0": {"fid": 2.0, "fid_few": 3.0}})
    folder.write_bytes("48-d/metrics.json", b"{")
    folder.write_bytes("real-a-b.bin", b"sums of the real images")
    found, [problem] = read_evaluations(folder)
    assert [one.evaluation.id for one in found] == ["000000000048-training", "48-c", "48-b"]
    assert "48-d/metrics.json" in problem and "Remove the folder" in problem
    assert list(training_evaluations(run)) == [48]
    assert training_evaluations(run)[48].scores == {"1.0": {"fid": 2.0, "fid_few": 3.0}}


def test_the_best_set_has_the_smallest_fid_and_none_without_fid():
    evaluation = example()
    assert evaluation.best.omega == 2.0
    without = tuple(dataclasses.replace(s, fid=None) for s in evaluation.sets)
    assert dataclasses.replace(evaluation, sets=without).best.omega == 1.0


@pytest.mark.parametrize("change", [{"format": 0}, {"sets": 3}, {"dataset": None, "run": None}])
def test_a_text_of_another_version_is_an_error(change):
    data = json.loads(to_json(example())) | change
    if change.get("run", 1) is None:
        del data["run"]
    with pytest.raises(ValueError, match="damaged or of another version"):
        from_json(json.dumps(data))


def test_only_the_ends_of_an_interval_may_be_unknown():
    data = json.loads(to_json(example()))
    data["sets"][0]["fid"] |= {"low": None, "high": None}
    assert not from_json(json.dumps(data)).sets[0].fid.is_known
    data["sets"][0]["fid"]["value"] = None
    with pytest.raises(ValueError, match="fid.value takes a number, got 'None'"):
        from_json(json.dumps(data))


def test_classes_are_also_comma_separated_values_with_nothing_where_nothing_is_known(tmp_path):
    home, written = Storage(str(tmp_path)), example()
    write_evaluation(home, written)
    rows = list(csv.DictReader(home.read_text("classes.csv").splitlines()))
    assert [float(row["guidance"]) for row in rows] == [
        s.omega for s in written.sets for _ in "ab"
    ]
    rows, table = rows[:2], written.sets[0].table.classes
    assert [row["class"] for row in rows] == list(written.class_names)
    assert [int(row["num_train"]) for row in rows] == [200, 10]
    assert [float(row["fidelity"]) for row in rows] == [1.0, 0.0]
    assert float(rows[0]["fid_low"]) == table[0].fid.low and rows[0]["group"] == "medium"
    bare = dataclasses.replace(written, sets=(SetResult("", 0.0, "cfg", 1),))
    write_evaluation(Storage(str(tmp_path / "bare")), bare)
    assert not (tmp_path / "bare" / "classes.csv").exists()
