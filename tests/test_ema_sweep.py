"""evaluate --ema-sweep: an evaluation of every width, and which is best."""

import io
import re
from contextlib import redirect_stdout

import pytest
from evaluate_tools import QUICK, evaluate, home_of
from sampling_tools import make_run
from test_load_pretrained import keep_two

from cbdm_scale.evaluate import main
from cbdm_scale.storage.folder import Storage

WORDS = ("--guidance", "0", "--ema-sweep", "0.1", "0.05", *QUICK)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, digits_root, random_classifier):
    """A run whose widths were evaluated, and what the command said. Read only."""
    run = make_run(tmp_path_factory.mktemp("swept"), digits_root, images=(48, 96))
    keep_two(run)
    said = io.StringIO()
    with redirect_stdout(said):
        assert evaluate(run, random_classifier, *WORDS) == 0
    return run, said.getvalue()


def test_every_width_is_evaluated_and_the_best_is_named(swept, random_classifier):
    run, said = swept
    folder = Storage(run).child("evaluation")
    found = folder.read_json("ema-sweep-000000000096.json")
    assert list(found) == ["ema", "power:0.05", "power:0.1"]
    assert len({row["id"] for row in found.values()}) == 3, "their weights differ"
    for row in found.values():
        assert folder.exists(f"{row['id']}/report.html") and row["num_images"] == 50
    best = min(found, key=lambda weights: found[weights]["fid"])
    assert f"--weights {best} --guidance 0" in said
    assert evaluate(run, random_classifier, *WORDS) == 0, "again"
    assert folder.read_json("ema-sweep-000000000096.json") == found


def test_against_a_run_whose_widths_were_swept_it_is_its_average_that_is_shown(
    swept, tmp_path, digits_root, random_classifier
):
    other, _ = swept
    rows = Storage(other).child("evaluation").read_json("ema-sweep-000000000096.json")
    run = make_run(tmp_path / "runs", digits_root)
    words = ("--guidance", "0", "--against", other, *QUICK)
    assert evaluate(run, random_classifier, *words) == 0
    report = home_of(run).read_json("report.json")
    assert report["against"] == f"noise/{rows['ema']['id']}", "not the newest, a width"


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
