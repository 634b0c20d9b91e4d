"""The evaluate command in one process, on the digits and a network whose weights are noise."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import ray_tools
import torch
from sampling_tools import make_run, only_set
from tracking_tools import begin, history

from cbdm_scale.data.manifest import parse_manifest
from cbdm_scale.evaluate.command import main, parse
from cbdm_scale.evaluate.inputs import find_inputs
from cbdm_scale.evaluate.kept import read
from cbdm_scale.evaluate.options import EvaluateOptions
from cbdm_scale.evaluate.pictures import first_rows, report_images
from cbdm_scale.evaluate.tell import metrics
from cbdm_scale.evaluation.classifier import SmallClassifier, save_classifier
from cbdm_scale.evaluation.extractors import load_extractor
from cbdm_scale.evaluation.fid import fid
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.evaluation.sources import SplitImages
from cbdm_scale.imageset.images import open_set
from cbdm_scale.sample import main as sample
from cbdm_scale.storage import Storage
from cbdm_scale.tracking.client import make_client

HERE = ("--cluster.workers", "0")
QUICK = ("--no-memorisation", *HERE)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    path = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    path.write_bytes(save_classifier(net))
    return f"classifier:{path}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, digits_root, classifier) -> str:
    """A run that was evaluated at omega 0 and 2. Read only."""
    run = make_run(tmp_path_factory.mktemp("runs"), digits_root)
    assert evaluate(run, classifier, "--guidance", "2,0", *HERE) == 0
    return run


@pytest.fixture
def copy(shared, tmp_path) -> str:
    """The same run, which a test may change."""
    shutil.copytree(shared, tmp_path / "runs" / "noise")
    return str(tmp_path / "runs" / "noise")


def evaluate(run: str, extractor: str, *words: str) -> int:
    number = () if "--samples" in words else ("--num-images", "50")
    return main(["--run", run, "--extractor", extractor, *number, *words])


def home_of(run: str) -> Storage:
    [name] = Storage(run).child("evaluation").list()
    return Storage(f"{run}/evaluation/{name}")


def found_in(run: str) -> Evaluation:
    found = read(home_of(run))
    assert found is not None
    return found


# ----------------------------------------------------------------------------
# What is found.


def test_the_numbers_are_those_of_the_images_that_were_made(shared, digits_root, classifier):
    found = found_in(shared)
    assert [one.omega for one in found.sets] == [0, 2] and found.trained_images == 48
    assert (found.run, found.dataset, found.num_real) == ("noise", "digits_lt", 1797)
    extractor = load_extractor(classifier, "")
    real = SplitImages(digits_root, "digits_lt", "eval")
    for one in found.sets:
        sides = [
            extractor(torch.from_numpy(images.read(range(images.count))))
            for images in (real, open_set(one.images))
        ]
        expected = fid(sides[0].pool, sides[1].pool)
        assert one.fid and one.fid.value == pytest.approx(expected, rel=1e-4)
        hits = sides[1].logits.argmax(1) == torch.arange(50) % 10
        assert one.fidelity and one.fidelity.value == pytest.approx(hits.double().mean().item())
        assert [row.num_images for row in one.memorisation] == [50, 15, 20, 15]
        assert {gap.name for gap in one.missing} == {"inception_score"}
    held_out = [row.num_images for row in found.held_out_copies]
    assert held_out[0] == sum(held_out[1:]) == 1797 - 428


def test_the_same_command_says_it_again_and_makes_nothing(copy, classifier, capsys):
    shutil.rmtree(Path(copy, "samples"))
    before = sorted(p.stat().st_mtime_ns for p in home_of(copy).local_path().iterdir())
    assert evaluate(copy, classifier, "--guidance", "0,2", *HERE) == 0
    out = capsys.readouterr().out
    assert "omega" in out and "features of" not in out
    assert not Path(copy, "samples").exists()
    after = sorted(p.stat().st_mtime_ns for p in home_of(copy).local_path().iterdir())
    assert after == before


def test_what_decides_the_numbers_decides_the_folder(shared, classifier):
    words = ["--run", shared, "--extractor", classifier, "--guidance", "0,2"]
    words += ["--num-images", "50"]

    def id_of(*more: str) -> str:
        options, origin = parse([*words, *more])
        return find_inputs(options, origin).id

    assert id_of() == found_in(shared).id
    changes = [
        ("--num-images", "49"),
        ("--guidance", "0,1"),
        ("--seed", "1"),
        ("--weights", "raw"),
        ("--no-memorisation",),
        ("--sample.num-steps", "4"),
        ("--chunk-size", "9"),
        ("--resize", "tf1"),
    ]
    ids = [id_of(*change) for change in [(), *changes]]
    assert len(set(ids)) == len(ids)
    assert id_of("--cluster.workers", "0", "--guidance", "2,0,0") == ids[0]


@pytest.mark.parametrize("form", ["npz", "png", "shards", "set"])
def test_images_in_any_form_give_the_numbers_of_the_set(shared, classifier, form, tmp_path):
    words = ["--run", shared, "--guidance", "2", "--num-images", "50", *HERE]
    words += ["--out", str(tmp_path / "sets")]
    assert sample([*words, "--format", "png" if form == "set" else form]) == 0
    folder = only_set(str(tmp_path / "sets"))
    where = {
        "npz": folder.path("images-50.npz"),
        "png": folder.path("png-50"),
        "shards": folder.path("shards-50/digits_lt:train"),
        "set": folder.url,
    }[form]
    more = ("--samples", where, "--guidance", "2", "--out", str(tmp_path / "found"))
    assert evaluate(shared, classifier, *more, *QUICK) == 0
    [name] = Storage(str(tmp_path / "found")).list()
    given, made = read(Storage(str(tmp_path / "found")).child(name)), found_in(shared).sets[1]
    [one] = given.sets
    assert (one.images, one.omega, one.num_images) == (where, 2.0, 50)
    assert one.fid.value == pytest.approx(made.fid.value, rel=1e-6)
    assert one.fidelity == made.fidelity and one.memorisation == ()


def test_the_first_images_of_a_set_may_be_enough(shared, classifier, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.arange(20) % 10)
    more = ("--samples", str(tmp_path / "a.npz"), "--out", str(tmp_path / "found"))
    assert evaluate(shared, classifier, *more, "--num-images", "12", *QUICK) == 0
    assert evaluate(shared, classifier, *more, *QUICK) == 0
    found = Storage(str(tmp_path / "found"))
    sizes = [read(found.child(name)).sets[0].num_images for name in found.list()]
    assert sorted(sizes) == [12, 20]


def test_too_few_images_are_no_crash(copy, classifier, capsys, tmp_path):
    more = ("--num-images", "4", "--guidance", "0", "--out", str(tmp_path))
    assert evaluate(copy, classifier, *more, *QUICK) == 0
    out = capsys.readouterr().out
    assert re.search(r"no precision, recall, density, coverage: .* more than 5 images", out)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_ray_workers_find_the_same_bytes_as_one_process(work: Path, tmp_path: Path):
    noise = make_run(tmp_path / "runs", str(work / "shards"))
    words = [sys.executable, "-m", "cbdm_scale.evaluate", "--run", noise, "--num-images", "60"]
    found = []
    for workers in ("0", "2"):
        place = tmp_path / workers
        more = ["--out", str(place), "--features", str(place / "features")]
        pool = ["--cluster.workers", workers, "--cluster.cpus-per-worker", "0.9"]
        assert "metrics" in ray_tools.run([*words, *more, *pool])
        [metrics_file] = place.glob("*/metrics.json")
        found.append(metrics_file.read_bytes())
        shutil.rmtree(f"{noise}/samples")
    assert found[0] == found[1]


# ----------------------------------------------------------------------------
# What the report gets.


def test_the_report_gets_the_nearest_training_image_of_every_made_one(
    shared, digits_root, classifier, tmp_path
):
    train = SplitImages(digits_root, "digits_lt", "train")
    rows = first_rows(torch.from_numpy(train.labels), tuple(range(10)), 2).flatten().tolist()
    pixels = train.read(rows).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "copies.npz", arr_0=pixels, arr_1=train.labels[rows])
    more = ["--samples", str(tmp_path / "copies.npz"), "--out", str(tmp_path / "found")]
    words = ["--run", shared, "--extractor", classifier, *more, *HERE]
    assert main(words) == 0
    options, origin = parse(words)
    inputs = find_inputs(options, origin)
    evaluation = read(inputs.home)
    pictures = report_images(inputs, evaluation)
    assert pictures.classes == (0, 1, 4, 5, 8, 9), "two of head, middle and tail"
    assert pictures.made.shape == pictures.nearest.shape == (6, 2, 1, 8, 8)
    assert torch.equal(pictures.made, pictures.nearest)
    kept = torch.from_numpy(train.read(rows)).view(10, 2, 1, 8, 8)
    assert torch.equal(pictures.made, kept[list(pictures.classes)])
    assert evaluation.sets[0].memorisation[0].copies == 1.0


def test_images_without_labels_leave_no_class_to_show(shared, classifier, tmp_path):
    images = np.zeros((9, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images)
    more = ["--samples", str(tmp_path / "a.npz"), "--out", str(tmp_path / "found")]
    options, origin = parse(["--run", shared, "--extractor", classifier, *more, *QUICK])
    inputs = find_inputs(options, origin)
    assert evaluate(shared, classifier, *more, *QUICK) == 0
    pictures = report_images(inputs, read(inputs.home))
    assert pictures.classes == () and pictures.made.shape[0] == 0 and pictures.nearest is None


# ----------------------------------------------------------------------------
# Another run beside it.


def test_against_shows_the_newest_evaluation_of_the_other_run(copy, shared, classifier):
    words = ("--guidance", "0,2", "--against", shared)
    assert evaluate(copy, classifier, *words, *HERE) == 0
    found = home_of(copy).read_json("report.json")
    assert found["against"] == f"noise/{found_in(shared).id}"


def test_another_run_without_an_evaluation_is_said_with_the_command(
    copy, shared, classifier, capsys
):
    words = ("--guidance", "0,2", "--num-images", "20", "--against", shared)
    assert evaluate(copy, classifier, *words, *HERE) == 1
    error = capsys.readouterr().err
    assert f"against ({shared}) has no evaluation with extractor {classifier}" in error
    command = f"--run {shared} --num-images 20 --guidance 0,2 --extractor {classifier}"
    assert f"python -m cbdm_scale.evaluate {command}" in error


def test_a_run_on_another_data_set_is_not_compared_with(copy, shared, classifier, capsys):
    config = Path(copy, "config.json")
    about = json.loads(config.read_text())
    about["image"]["fingerprint"] = "0123456789abcdef"
    config.write_text(json.dumps(about))
    assert evaluate(shared, classifier, "--against", copy, *HERE) == 1
    error = capsys.readouterr().err
    assert f"against ({copy}) learnt from digits_lt (0123456789abcdef)" in error


# ----------------------------------------------------------------------------
# MLflow.


def test_numbers_and_report_reach_the_runs_mlflow_and_wait_while_it_is_away(
    copy, classifier, capsys
):
    uri = f"sqlite:///{Path(copy).parent / 'mlflow.db'}"
    run_id = begin(uri, Storage(copy))
    words = ("--guidance", "0,2", *HERE)
    away = ("--tracking-uri", "http://127.0.0.1:9")
    assert evaluate(copy, classifier, *words, *away) == 0
    out = capsys.readouterr().out
    assert re.search(r"waiting  http://127.0.0.1:9 does not take .*; the same command", out)
    assert home_of(copy).exists("report.html")
    for _ in range(2):  # the second time it is there
        assert evaluate(copy, classifier, *words) == 0
        assert "waiting" not in capsys.readouterr().out
    found = found_in(copy)
    numbers = metrics(found)
    assert numbers["eval/omega_2/fid"] == found.sets[1].fid.value
    assert numbers["eval/omega_2/kid_few"] == found.sets[1].table.pooled[3].kid.value
    for name, value in numbers.items():
        assert history(uri, run_id, name) == [(48, value)], name
    client = make_client(uri)
    files = {file.path for file in client.list_artifacts(run_id, f"evaluation/{found.id}")}
    names = {path.rpartition("/")[2] for path in files}
    assert {"metrics.json", "report.html", "per_class.json"} <= names


# ----------------------------------------------------------------------------
# What does not fit.


def tampered(copy: str, tmp_path: Path, digits_root: str, **changes) -> str:
    """A data root whose dataset.json is changed, and the run that learnt from it."""
    root = tmp_path / "changed"
    shutil.copytree(digits_root, root)
    path = root / "digits_lt" / "dataset.json"
    manifest = json.loads(path.read_text())
    for key in changes["without"]:
        del manifest["counts"][key]
    path.write_text(json.dumps(manifest))
    config = Path(copy, "config.json")
    about = json.loads(config.read_text())
    about["image"]["fingerprint"] = parse_manifest(path.read_bytes()).fingerprint
    config.write_text(json.dumps(about))
    return str(root)


def test_a_data_set_without_eval_split_is_said(copy, tmp_path, digits_root, classifier, capsys):
    root = tampered(copy, tmp_path, digits_root, without=["eval"])
    assert evaluate(copy, classifier, "--data-root", root, *HERE) == 1
    assert "has no eval split to compare with, only train" in capsys.readouterr().err


def test_samples_of_another_size_are_said(shared, classifier, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((9, 32, 32, 3), np.uint8))
    assert evaluate(shared, classifier, "--samples", str(tmp_path / "a.npz"), *QUICK) == 1
    error = capsys.readouterr().err
    assert (
        "are 3 x 32 x 32 (channels, height, width), the images of data set digits_lt" in error
    )


def test_labels_that_the_data_set_does_not_have_are_said(shared, classifier, tmp_path, capsys):
    pixels = np.zeros((9, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=pixels, arr_1=np.full(9, 10))
    assert evaluate(shared, classifier, "--samples", str(tmp_path / "a.npz"), *QUICK) == 1
    assert "has label 10, the data set digits_lt has 10 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--guidance", "0,much"), r"guidance \(0,much\) must be one or more numbers of at"),
        (("--guidance", "-1"), r"guidance \(-1\) must be one or more numbers"),
        (("--guidance", "nan"), r"guidance \(nan\) must be one or more numbers"),
        (("--num-images", "1"), "num_images must be at least 2, got 1"),
        (("--chunk-size", "0"), "chunk_size must be at least 1, got 0"),
        (("--extractor", "vgg"), "eval.extractor 'vgg' is not known"),
        (("--extractor", "none"), "extractor none gives no numbers"),
        (("--dataset", "cifar10"), r"dataset \(cifar10\): the run learnt from digits_lt"),
        (("--data-root", "/nowhere"), r"data_root: .*/nowhere.* holds no data set digits_lt"),
        (("--samples", "/nowhere"), "samples: /nowhere is not there"),
        (("--samples", "a.npz", "--guidance", "0,1"), "names 2 strengths, and samples .a.npz"),
        (("--against", "/nowhere"), r"against: run \(/nowhere\) does not exist"),
        (("--run", "/nowhere"), r"run \(/nowhere\) does not exist"),
        (("--sample.num-steps", "2000"), r"sample.num_steps \(2000\) must be between 1 and"),
    ],
)
def test_what_does_not_fit_is_named(shared, classifier, capsys, words, message):
    before = Storage(f"{shared}/evaluation").list()
    try:
        status = evaluate(shared, classifier, *HERE, *words)
    except SystemExit as stopped:  # by tyro
        status = stopped.code
    assert status
    assert re.search(message, capsys.readouterr().err)
    assert Storage(f"{shared}/evaluation").list() == before


def test_without_a_run_the_way_out_is_said(capsys):
    assert main([*HERE]) == 1
    assert "run is missing" in capsys.readouterr().err


def test_the_runs_own_configuration_decides_the_defaults(shared):
    options, origin = parse(["--run", shared, "--seed", "5"])
    assert origin and options.sample == origin.config.sample
    assert (options.num_images, options.omegas, options.chunk_size) == (30, (1.0,), 8)
    assert options.seed == 5 and options.extractor == "classifier"
    assert EvaluateOptions(guidance="1, 0,0.5 ,1").omegas == (0.0, 0.5, 1.0)


def test_a_damaged_result_is_named_with_the_way_out(copy, classifier, capsys):
    home_of(copy).write_bytes("metrics.json", b"{")
    assert evaluate(copy, classifier, "--guidance", "0,2", *HERE) == 1
    assert "metrics.json is damaged" in capsys.readouterr().err
