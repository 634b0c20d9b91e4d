"""The benchmark for GPUs runs, in its smallest form, on the CPU."""

import json

import pytest

from benchmarks.gpu.__main__ import PARTS, main
from benchmarks.gpu.context import DIT, NETWORKS, UNET, forward_flops
from benchmarks.step import NUM_CLASSES
from cbdm_scale.models.spec import NetworkSpec


def test_every_part_runs_and_leaves_its_figures(tmp_path, monkeypatch, capsys):
    """All but --train.compile, which takes minutes on a CPU."""
    monkeypatch.setenv("OUT", str(tmp_path))
    parts = [part for part in PARTS if part != "compile"]
    assert main(["--tiny", "--only", *parts]) == 0
    figures = json.loads((tmp_path / "gpu.json").read_text())["samples"]
    assert not figures["failed"] and figures.keys() >= set(parts) - {"deterministic"}
    assert [line for line in figures["skipped"] if "inception" not in line] == []
    assert any("deterministic" in case for case in figures["train"])
    assert {"FID", "PRD", "precision / recall"} == {
        key.removeprefix("s of ").partition(",")[0] for key in figures["metrics"]
    }
    assert all(
        found["hours of 50,000 x 1,000 steps"] > 0 for found in figures["sample"].values()
    )
    shown = capsys.readouterr().out
    assert "nothing failed" in shown and "| / DDPM | obvious / it |" in shown
    assert "A step of CBDM beside its network's forward and backward" in shown


def test_a_part_that_fails_is_named_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    def fail(context):
        context.note("machine", "first", 1)
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(PARTS, "machine", (fail, 10))
    raw = tmp_path / "not there yet" / "gpu.json"
    assert main(["--tiny", "--raw", str(raw), "--only", "machine", "features"]) == 1
    figures = json.loads(raw.read_text())["samples"]
    assert figures["machine"] == {"first": 1} and figures["features"]
    assert list(figures["failed"]) == ["machine"]
    assert "machine: RuntimeError: no such kernel" in capsys.readouterr().out


@pytest.mark.parametrize(
    "network, gflop",
    [(UNET, 12.44), (DIT, 12.1)],  # twice 6.22 GMAC; with 1.2 of attention
)
def test_operations_of_a_prediction_are_counted(network, gflop):
    spec = NetworkSpec(
        model=NETWORKS[network], channels=3, image_size=32, num_classes=NUM_CLASSES
    )
    assert forward_flops(spec) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_the_parts_fit_into_eight_minutes_before_anything_is_compiled():
    seconds = {part: most for part, (_, most) in PARTS.items()}
    assert list(seconds)[-1] == "compile" and sum(seconds.values()) - seconds["compile"] <= 430
