"""evaluate --ema-sweep: an evaluation of every width, and which is best."""

import re

import pytest
from evaluate_tools import QUICK, evaluate, home_of
from sampling_tools import make_run
from test_load_pretrained import keep_two

from cbdm_scale.evaluate import main
from cbdm_scale.storage.folder import Storage


def test_every_width_is_evaluated_and_the_best_is_named(
    tmp_path, digits_root, random_classifier, capsys
):
    run = make_run(tmp_path / "runs", digits_root, images=(48, 96))
    keep_two(run)
    words = ("--guidance", "0", "--ema-sweep", "0.1", "0.05", *QUICK)
    assert evaluate(run, random_classifier, *words) == 0
    folder = Storage(run).child("evaluation")
    found = folder.read_json("ema-sweep-000000000096.json")
    assert list(found) == ["ema", "power:0.05", "power:0.1"]
    assert len({row["id"] for row in found.values()}) == 3, "their weights differ"
    for row in found.values():
        assert folder.exists(f"{row['id']}/report.html") and row["num_images"] == 50
    best = min(found, key=lambda weights: found[weights]["fid"])
    assert f"--weights {best} --guidance 0" in capsys.readouterr().out
    assert evaluate(run, random_classifier, *words) == 0, "again"
    assert folder.read_json("ema-sweep-000000000096.json") == found


def test_against_a_run_whose_widths_were_swept_it_is_its_average_that_is_shown(
    tmp_path, digits_root, random_classifier
):
    other = make_run(tmp_path / "other", digits_root, images=(48, 96))
    keep_two(other)
    sweep = ("--guidance", "0", "--ema-sweep", "0.1", *QUICK)
    assert evaluate(other, random_classifier, *sweep) == 0
    swept = Storage(other).child("evaluation").read_json("ema-sweep-000000000096.json")
    run = make_run(tmp_path / "runs", digits_root)
    words = ("--guidance", "0", "--against", other, *QUICK)
    assert evaluate(run, random_classifier, *words) == 0
    report = home_of(run).read_json("report.json")
    assert report["against"] == f"noise/{swept['ema']['id']}", "not the newest, power:0.1"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--ema-sweep", "0.1", "x"), r"--ema-sweep takes .*, got '0\.1 x'"),
        (
            ("--ema-sweep", "0.1", "0.9"),
            "must be above 0 and at most 0.28 each, got 0.1 0.9",
        ),
        (("--ema-sweep", "0.1", "--weights", "raw"), r"cannot go with weights"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(evaluated, words, complaint, capsys):
    assert main(["--run", evaluated, *words]) != 0
    assert re.search(complaint, " ".join(capsys.readouterr().err.replace("│", " ").split()))
