"""Two commands that would write the same folder: the second is refused, whichever it is."""

import shutil
from pathlib import Path

import pytest
from balance_tools import NAME, balance, see_right
from evaluate_tools import evaluate, home_of
from sampling_tools import make_run, only_set
from test_compare_run import PROTOCOL

from cbdm_scale import classify, sample, train
from cbdm_scale.evaluation import publish
from cbdm_scale.runs import launch
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import lease
from tune import compare, search_tau
from tune import run as search_run

SMALL = (
    *("--model.channels", "8", "--model.multipliers", "1", "--model.num-blocks", "1"),
    *("--model.attention", "0", "--model.groups", "4", "--eval.extractor", "none"),
    *("--train.total-images", "48", "--train.sample-every", "0", "--cluster.workers", "0"),
)


def refused(folder: Storage, command, capsys) -> None:
    """While this process says that it lives there, the command does nothing and says why."""
    with lease(folder, "it is being tested", beat_s=0.05):
        assert command() == 1
    told = capsys.readouterr().err
    assert " by " in told and "which has just been seen. Wait for its end" in told


def where(tmp_path, digits_root, *more):
    return ["--data.root", digits_root, "--cluster.storage", str(tmp_path), *more]


def test_a_run_is_trained_by_one_command(tmp_path, digits_root, monkeypatch, capsys):
    """Its first look, before a cluster is joined, holds nothing."""
    monkeypatch.setattr(launch, "wait_until_free", lambda *_: None)
    words = where(tmp_path, digits_root, "--name", "mine", *SMALL)
    refused(Storage(f"{tmp_path}/mine"), lambda: train.main(words), capsys)


def test_a_classifier_is_trained_by_one_command(tmp_path, tail_root, capsys):
    words = where(tmp_path, tail_root, "--name", "mine", "--cluster.workers", "0")
    words += ["--dataset", "tail", "--train.total-images", "128", "--seeds", "0"]
    refused(Storage(f"{tmp_path}/mine"), lambda: classify.main(words), capsys)


@pytest.mark.ray
def test_a_search_is_run_by_one_command(tmp_path, work, monkeypatch, capsys):
    monkeypatch.setattr(search_run, "wait_until_free", lambda *_: None)
    words = where(tmp_path, str(work / "shards"), "--name", "mine", *SMALL[:-2])
    words += ["--trials", "2", "--finalists", "0"]
    words += ["--eval.extractor", "classifier"]
    refused(Storage(f"{tmp_path}/search/mine"), lambda: search_tau.main(words), capsys)


def test_a_comparison_is_made_by_one_command(tmp_path, digits_root, random_classifier, capsys):
    root = shutil.copytree(digits_root, tmp_path / "root")
    shutil.copy(random_classifier.partition(":")[2], root / "digits_lt")
    (tmp_path / "mine.yaml").write_text(PROTOCOL.format(strengths="[1]"))
    words = where(tmp_path, str(root), "--protocol", str(tmp_path / "mine.yaml"))
    words += ["--parallel", "1", "--cluster.device", "cpu", "--phase", "screen"]
    refused(Storage(f"{tmp_path}/compare/mine"), lambda: compare.main(words), capsys)


def test_a_set_is_made_by_one_command(tmp_path, digits_root, capsys):
    """The second deleted what the first was writing."""
    words = ["--run", make_run(tmp_path / "runs", digits_root), "--num-images", "10"]
    words += ["--out", str(tmp_path / "out"), "--cluster.workers", "0"]
    assert sample.main(words) == 0
    folder = only_set(str(tmp_path / "out"))
    refused(folder, lambda: sample.main(words), capsys)
    assert sample.main(words) == 0
    assert not folder.exists("lease.json")


def test_an_evaluation_is_made_by_one_command_and_read_by_all(
    evaluated_copy, random_classifier, capsys
):
    """The second logged every number once more."""
    again = ("--guidance", "2", "0", "--cluster.workers", "0")

    def command() -> int:
        return evaluate(evaluated_copy, random_classifier, *again)

    home = home_of(evaluated_copy)
    with lease(home, "it is being tested", beat_s=0.05):
        assert command() == 0, "there is nothing to write"
    home.remove(publish.REPORT_LIST)
    refused(home, command, capsys)


def test_a_data_set_is_filled_by_one_command(
    tmp_path, tail_root, classifiers, monkeypatch, capsys
):
    see_right(monkeypatch)
    run = make_run(tmp_path / "runs", tail_root, dataset="tail", row="small")
    out = tmp_path / "out"

    def command() -> int:
        return balance(run, classifiers, out, "--to", "10", "--filters", "none")

    refused(Storage(f"{out}/.{NAME}.balance.tmp"), command, capsys)
    assert not Path(out, NAME).exists()
