"""Several feature spaces in one evaluation: the same images, each space as it is alone."""

import contextlib
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluate_tools import HERE, evaluate
from report_tools import example
from sampling_tools import make_run

from cbdm_scale.evaluate import main, parse
from cbdm_scale.evaluation import summary
from cbdm_scale.evaluation.options import EvaluateOptions
from cbdm_scale.evaluation.report.page import write_report
from cbdm_scale.evaluation.results import Evaluation, SpaceResult
from cbdm_scale.evaluation.store import (
    classes_csv,
    from_json,
    read_evaluations,
    to_json,
)
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.path_options import absolute_paths

STRENGTHS = ("--guidance", "0", "2", "--num-images", "50")


def network(folder: Path, seed: int, channels: int = 1) -> str:
    """Another extractor: a classifier of the digits whose weights are noise."""
    torch.manual_seed(seed)
    net = SmallClassifier(image_channels=channels, image_size=8, num_classes=10)
    file = folder / f"net-{seed}-{channels}.safetensors"
    file.write_bytes(save_classifier(net))
    return f"classifier:{file}"


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> str:
    return network(tmp_path_factory.mktemp("second"), 1)


@pytest.fixture(scope="module")
def judged(
    tmp_path_factory, digits_root, random_classifier, second
) -> tuple[dict[str, Evaluation], str, Path]:
    """Evaluations in both spaces, then in each alone; what the first said; its folder."""
    run = make_run(tmp_path_factory.mktemp("spaces"), digits_root)
    found, said, home = {}, "", Path()
    asked = {"both": (random_classifier, second), "first": (random_classifier,)}
    for name, extractors in (asked | {"second": (second,)}).items():
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["--run", run, "--extractor", *extractors, *STRENGTHS, *HERE]) == 0
        stored, problems = read_evaluations(Storage(f"{run}/evaluation"))
        assert not problems
        found[name] = stored[-1].evaluation
        if name == "both":
            said, home = out.getvalue(), Path(stored[-1].home.url)
    assert len({one.id for one in found.values()}) == 3
    return found, said, home


def numbers_of(space: SpaceResult) -> object:
    """The record of one space, without what is of the evaluation."""
    tree = json.loads(to_json(replace(example(), **{n: getattr(space, n) for n in FIELDS})))
    return {name: tree[name] for name in FIELDS}


FIELDS = tuple(SpaceResult.__dataclass_fields__)


# ----------------------------------------------------------------------------
# The numbers.


def test_each_space_has_the_numbers_of_an_evaluation_in_it_alone(judged):
    found, _, _ = judged
    (other,) = found["both"].further
    assert numbers_of(found["both"]) == numbers_of(found["first"])
    assert numbers_of(other) == numbers_of(found["second"])
    assert numbers_of(other) != numbers_of(found["first"])
    assert [one.omega for one in other.sets] == [0.0, 2.0] and other.held_out_copies
    assert {one.images for one in other.sets} == {one.images for one in found["both"].sets}


def test_the_images_are_made_once_and_shown_in_each_space(judged, random_classifier, second):
    found, said, _ = judged
    assert len(re.findall("^set ", said, re.M)) == 2
    for name in (random_classifier, second):
        assert f"numbers at omega 2 by {name}\n" in said
        assert re.search(rf"^ *{re.escape(name)} +\d.* \d.*  [02]$", said, re.M)
    (other,) = found["both"].further
    best = other.sets[found["both"].sets.index(found["both"].best)]
    assert f"{best.fid.value:.2f} [{best.fid.low:.2f}, {best.fid.high:.2f}]" in said


def test_one_space_is_said_as_it_was(judged):
    assert not any("feature space" in line for line in summary.table(judged[0]["first"]))


# ----------------------------------------------------------------------------
# What is stored, logged and drawn.


def test_the_record_and_the_table_of_classes_have_every_space(judged):
    both = judged[0]["both"]
    assert to_json(from_json(to_json(both))) == to_json(both)
    rows = list(csv.DictReader(io.StringIO(classes_csv(both))))
    assert [row["extractor"] for row in rows[::20]] == [s.extractor for s in both.spaces]
    assert float(rows[20]["kid"]) == both.further[0].sets[0].table.classes[0].kid.value
    alone = list(csv.DictReader(io.StringIO(classes_csv(judged[0]["second"]))))
    assert [{**row, "extractor": rows[20]["extractor"]} for row in alone] == rows[20:]
    assert "extractor" not in alone[0]


def test_mlflow_names_the_further_spaces_by_their_extractors():
    one = example(extractor="classifier")
    space = {name: getattr(one, name) for name in FIELDS}
    other = SpaceResult(**{**space, "extractor": "inception", "sets": example(level=2).sets})
    both = replace(one, further=(other,))
    found = both.metrics(EvalConfig(num_images=1000))
    assert found["eval/guidance_0.4/fid"] == one.sets[1].fid.value
    assert found["eval/inception/guidance_0.4/fid"] == other.sets[1].fid.value
    assert found["eval/inception/guidance_0.4/fid_many"] == other.sets[1].scores["fid_many"]
    assert found["eval/inception/held_out_copies_few"] == 0.008
    alone = one.metrics(EvalConfig(num_images=1000))
    assert {name for name in found if "/inception/" not in name} == {*alone}
    assert len(found) == 2 * len(alone)


def test_the_page_has_a_column_for_each_space(judged, tmp_path):
    both, alone = judged[0]["both"], judged[0]["first"]
    pages = [write_report(one, None, tmp_path / one.id)[0].read_text() for one in (both, alone)]
    section = pages[0].partition("<h2>Feature spaces</h2>")[2].partition("</section>")[0]
    heads = re.findall("<th>(.*?)</th>", section)
    assert heads == ["score", *(space.extractor for space in both.spaces)]
    rows = {
        cells[0]: cells[1:]
        for line in re.findall("<tr><td>.*?</tr>", section)
        if (cells := re.findall("<td>(.*?)</td>", line))
    }
    assert {"FID", "KID × 1000", "KID × 1000, few", "Recall, many", "Label fidelity"} <= {*rows}
    assert all(
        re.match(r"[\d,.]+<small>[\d,.]+ to [\d,.]+; real ones: ", c) for c in rows["FID"]
    )
    assert "Inception Score" not in rows, "neither space has one"
    assert "Feature spaces" not in pages[1]


def test_the_stored_page_has_them_too(judged):
    assert "<h2>Feature spaces</h2>" in (judged[2] / "report.html").read_text()


# ----------------------------------------------------------------------------
# What is refused.


def test_what_does_not_go_together_is_refused_before_any_image_is_made(
    tmp_path, digits_root, random_classifier, second, capsys
):
    run = make_run(tmp_path, digits_root)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(second.partition(":")[2]).read_bytes())
    colour = network(tmp_path, 1, channels=3)
    nowhere = ("--extractor-weights", str(tmp_path / "none.pth"))
    other = ("--extractor-weights", str(copy))
    for words, message in (
        ((second, second), rf"extractor: {second} and {second} are the same network"),
        ((second, f"classifier:{copy}"), rf"extractor: {second} and classifier:{copy} are the"),
        ((second, "none"), "extractor none gives no numbers"),
        ((second, "vgg"), "extractor 'vgg' is not known"),
        (
            (second, "inception", *nowhere),
            r"extractor_weights .*none.pth.* --extractor-weights",
        ),
        ((second, "inception", *other), "To use this file all the same, give --allow-weights"),
        ((second, "dinov2", *other, "--allow-weights"), "Give --extractor-weights one of the"),
        (("inception", "dinov2", *nowhere), "one file, and inception and dinov2 need one each"),
        ((second, colour), r"classifier was trained on images \(3, 8, 8\), not on \(1, 8, 8\)"),
    ):
        assert evaluate(run, random_classifier, *HERE, "--extractor", *words) == 1
        assert re.search(message, capsys.readouterr().err), message
    assert not Path(run, "samples").exists() and not Path(run, "evaluation").exists()


def test_paths_of_extractors_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = absolute_paths(EvaluateOptions(extractor=("inception", "classifier:a/net")))
    assert options.extractor == ("inception", f"classifier:{tmp_path}/a/net")


def test_a_run_without_an_extractor_is_evaluated_by_the_usual_one(tmp_path, digits_root):
    run = make_run(tmp_path, digits_root)
    config = Storage(run).read_json("config.json")
    config["eval"]["extractor"] = "none"
    Storage(run).write_json("config.json", config)
    assert parse(["--run", run])[0].extractor == ("classifier",)
