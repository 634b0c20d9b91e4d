"""Names of the numbers of an evaluation, and what keeps two of them apart in MLflow."""

import math
from dataclasses import replace

import pytest
from record_tools import training_record

from cbdm_scale.evaluation.results import metric_name
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.options import EvalConfig

SCORES = {"1.5": {"fid": 4.0, "fid_few": 9.0, "fidelity": 0.5, "recall": 0.25}}
RUN = EvalConfig(num_images=30)


def by_command(**changes):
    return replace(training_record(48, SCORES), made_by="command", **changes)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("fid", 1.0), "eval/guidance_1/fid"),
        (("fid_few", 0.0), "eval/guidance_0/fid_few"),
        (("recall", 1.6), "eval/guidance_1.6/recall"),
        (("fid", "many=0.5,few=1"), "eval/guidance_many_0.5_few_1/fid"),
        (("fid", "count=1:-0.3"), "eval/guidance_count_1_-0.3/fid"),
        (("tail_warning",), "eval/tail_warning"),
        (("fid", 1.0, "power:0.1"), "eval/power_0.1/guidance_1/fid"),
        (("fid", 1.0, "classifier:/a b/c.pt"), "eval/classifier_a_b_c.pt/guidance_1/fid"),
    ],
)
def test_a_number_has_one_name(words, name):
    assert metric_name(*words) == name


def test_training_and_the_command_call_the_same_number_the_same():
    names = {f"eval/guidance_1.5/{name}": value for name, value in SCORES["1.5"].items()}
    assert training_record(48, SCORES).metrics(RUN) == names
    assert by_command().metrics(RUN) == names


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights": "power:0.1"}, "power_0.1"),
        ({"weights": "raw"}, "raw"),
        ({"extractor": "inception"}, "inception"),
        ({"resize": "tf1"}, "tf1"),
        ({"sets": {"num_images": 50_000}}, "50000_images"),
        ({"sets": {"guidance_mode": "tcfg"}}, "tcfg"),
        ({"sets": {"apart": ("sample.eta_0.5", "seed_7")}}, "sample.eta_0.5/seed_7"),
        ({"sets": {"apart": ("samples_a b.npz-1a2b3c4d",)}}, "samples_a_b.npz-1a2b3c4d"),
    ],
)
def test_another_quantity_takes_the_place_of_none(changes, part):
    usual = by_command()
    if "sets" in changes:
        changes = {"sets": tuple(replace(one, **changes["sets"]) for one in usual.sets)}
    other = by_command(**changes).metrics(RUN)
    names = [name.replace("eval/", f"eval/{part}/", 1) for name in usual.metrics(RUN)]
    assert list(other) == names


def test_an_interval_is_one_number_and_what_is_not_there_has_no_name():
    copies = GroupMemorisation("few", 3, None, 0.5)
    [one] = training_record(48, SCORES).sets
    one = replace(one, fid=Interval(4.0, 3.0, 5.0), memorisation=(copies,))
    found = by_command(sets=(one,), held_out_copies=(copies,)).metrics(RUN)
    assert found["eval/guidance_1.5/fid"] == 4.0 and "eval/guidance_1.5/kid" not in found
    assert not [name for name in found if name.endswith(("_low", "_high"))], "no chart of them"
    assert found["eval/guidance_1.5/copies_few"] == found["eval/held_out_copies_few"] == 0.5
    assert "eval/guidance_1.5/median_ratio_few" not in found
    assert not any(map(math.isnan, found.values()))
