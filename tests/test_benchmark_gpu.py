"""The benchmark for GPUs runs, in its smallest form, on the CPU."""

import json
import os
import sys

import pytest

from benchmarks.gpu.__main__ import MOST_TRIES, PARTS, main
from benchmarks.gpu.context import DIT, NETWORKS, UNET, LostDevice, forward_flops
from benchmarks.step import NUM_CLASSES
from cbdm_scale.models.spec import NetworkSpec

QUICK = "waits", "train", "host", "sample", "metrics"


@pytest.mark.parametrize(
    "parts",
    [QUICK, pytest.param([p for p in PARTS if p != "compile"], marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_every_part_runs_and_leaves_its_figures(parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert main(["--tiny", "--only", ",".join(parts)]) == 0
    figures = json.loads((tmp_path / "gpu.json").read_text())["samples"]
    assert not figures["failed"] and not figures["skipped"]
    assert list(figures["seconds"]) == list(parts)
    shown = capsys.readouterr().out
    assert "nothing failed" in shown and "| / DDPM | obvious / it |" in shown


def test_after_a_failure_that_takes_the_device_along_a_new_process_does_the_rest(
    tmp_path, monkeypatch
):
    begun, tried = [], []

    def lose(context):
        tried.append(context.is_done("waits", "first"))
        context.note("waits", "first", len(tried))
        raise LostDevice

    def begin(path, words):
        begun.append(words)
        raise SystemExit

    monkeypatch.setitem(PARTS, "waits", (lose, 10))
    monkeypatch.setattr(os, "execv", begin)
    words = ["--raw", str(tmp_path / "gpu.json"), "--only", "waits,sample"]
    for _ in range(MOST_TRIES):
        with pytest.raises(SystemExit):
            main(["--tiny", *words])
        python, *module = begun[-1][:3]
        assert python == sys.executable and module == ["-m", "benchmarks.gpu"]
        words = begun[-1][3:]
    assert tried == [False, True, True] and words[-2:] == ["--only", "sample"]
    assert main(["--tiny", *words]) == 0
    figures = json.loads((tmp_path / "gpu.json").read_text())["samples"]
    assert figures["waits"] == {"first": 3} and figures["sample"]


def test_an_unknown_part_is_refused_with_those_that_there_are(capsys):
    with pytest.raises(
        SystemExit, match=r"part \(speed\) is not known. Choose from: machine, "
    ):
        main(["--only", "train,speed"])


@pytest.mark.parametrize(
    "network, gflop",
    [(UNET, 12.44), (DIT, 12.1)],  # twice 6.22 GMAC; with 1.2 of attention
)
def test_operations_of_a_prediction_are_counted(network, gflop):
    spec = NetworkSpec(
        model=NETWORKS[network], channels=3, image_size=32, num_classes=NUM_CLASSES
    )
    assert forward_flops(spec) / 1e9 == pytest.approx(gflop, rel=0.01)
