"""A reference that is long-tailed itself is said wherever its numbers are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_tools import example
from tracking_tools import begin, make_database

from cbdm_scale.evaluation import summary
from cbdm_scale.evaluation.cautions import (
    imbalance,
    noise_warning,
    reference_warning,
    reference_warning_of,
)
from cbdm_scale.evaluation.report.claims import headline
from cbdm_scale.evaluation.report.page import write_report
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client
from cbdm_scale.tracking.log_evaluation import log_results
from cbdm_scale.train import main
from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset


def test_the_imbalance_is_the_share_of_images_that_would_change_their_class():
    assert imbalance([5, 5], [50, 50]) == 0
    assert imbalance([8, 2], [5, 5]) == pytest.approx(0.3)
    assert imbalance([3, 0], [0, 9]) == 1
    assert imbalance([0, 0], [5, 5]) == 0, "nothing to compare"


@pytest.mark.parametrize(
    ("real", "made", "words"),
    [
        ([30] * 4, [25] * 4, ()),
        ([29, 30, 30, 30], [25] * 4, ()),  # CUB-200's test images
        ([120, 40, 8, 2], [25] * 4, ("from 120 down to 2 a class (they are the", "unlike")),
        ([120, 40, 8, 2], [120, 40, 8, 2], ()),  # samples with the reference's labels
        ([90, 40, 8, 2], [25] * 4, ("from 90 down to 2 a class, unlike", "--eval-source")),
        ([25] * 4, [90, 40, 8, 2], ("The generated images have from 90 down to 2", "43%")),
    ],
)
def test_only_unlike_class_frequencies_are_warned_of(real, made, words):
    said = reference_warning(real, made, train=[120, 40, 8, 2])
    assert all(word in said for word in words) and bool(said) == bool(words)


@pytest.fixture(scope="module")
def unfair():
    """An evaluation whose real images are the training images."""
    evaluation = example(10, omegas=(1.0,))
    table = evaluation.best.table
    rows = tuple(replace(row, num_real=row.num_train) for row in table.classes)
    best = replace(evaluation.best, table=replace(table, classes=rows))
    return replace(evaluation, sets=(best,))


def test_console_and_page_say_it_first(unfair, tmp_path):
    warning = reference_warning_of(unfair)
    assert "reward a network that neglects rare classes" in warning
    weighed = reference_warning_of(replace(unfair, weighed=True))
    assert "weighed so that each class counts alike, and FID rewards no network" in weighed
    assert summary.table(unfair)[0] == f"warning: {warning}"
    [page, *_] = write_report(unfair, None, tmp_path)
    text = page.read_text("utf-8")
    claims = text[text.index('<ul class="claims">') :]
    assert claims.index("<li") == claims.index('<li class="bad">') < claims.index(warning[:40])
    fair = example(10, omegas=(1.0,))
    assert not reference_warning_of(fair) and "warning" not in summary.table(fair)[0]


def noise(**changes):
    """An evaluation of ten classes whose best set is changed."""
    evaluation = example(10, omegas=(1.0,))
    return replace(evaluation, sets=(replace(evaluation.best, **changes),))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"fidelity": Interval(0.11, 0.1, 0.12), "precision": 0.963},
            "a guess among 10 classes",
        ),
        ({"fidelity": Interval(0.11), "precision": None}, "right in 10.0%"),
        ({"fidelity": Interval(0.25), "precision": 0.963}, ""),
        ({"fidelity": None, "precision": 0.963, "coverage": 0.02}, "only 2.0% of the real"),
        ({"fidelity": None, "precision": 0.2, "coverage": 0.02}, ""),
        ({"fidelity": None, "precision": None, "coverage": None}, ""),
    ],
)
def test_noise_is_not_praised(changes, says):
    found = noise(**changes)
    said = noise_warning(found)
    assert says in said and bool(said) == bool(says)
    assert ("Precision (0.963)" in said) == (bool(says) and changes["precision"] is not None)
    guessed = "as a guess would" in headline(found)
    assert guessed == ("guess" in says or "right" in says)


def test_one_class_is_no_noise():
    assert not noise_warning(example(1, omegas=(1.0,)))


def test_console_and_page_write_kid_alike(tmp_path):
    evaluation = noise(kid=Interval(28.0, 27.5, 28.5))
    lines = summary.table(evaluation)
    assert "KID x 1000" in lines[0] and "28,000 [27,500, 28,500]" in lines[1]
    [page, *_] = write_report(evaluation, None, tmp_path)
    assert "28,000" in page.read_text("utf-8")


def test_mlflow_has_it_as_a_tag_of_the_run(tmp_path: Path):
    uri, run = make_database(tmp_path), Storage(str(tmp_path / "run"))
    run_id = begin(uri, run)
    assert log_results(run, uri, 48, {}, {}, "evaluation", {"reference_warning": "long"}) == ""
    assert make_client(uri).get_run(run_id).data.tags["reference_warning"] == "long"


def test_the_train_command_says_it_before_it_starts(tmp_path, capsys):
    labels = np.repeat(np.arange(3), (20, 4, 2))
    split = Split.of_arrays(np.zeros((26, 32, 32, 3), np.uint8), labels, "grey")
    source = Source(
        name="birds",
        class_names=("a", "b", "c"),
        image_size=32,
        channels=3,
        splits={"train": split, "eval": split},
        made="for a test",
        mirrors=True,
    )
    (tmp_path / "birds").mkdir()
    write_dataset(source, tmp_path / "birds", samples_per_shard=9, seed=0, log=lambda _: None)
    words = ["--dataset", "birds", "--preset", "small", "--data.root", str(tmp_path)]
    words += ["--cluster.storage", str(tmp_path / "runs"), "--dry-run"]
    assert main(words) == 0
    assert "warning: The real images have from 20 down to 2 a class" in capsys.readouterr().out
    assert main([*words, "--eval.extractor", "none"]) == 0
    assert "warning" not in capsys.readouterr().out, "no score, nothing to be warned of"
