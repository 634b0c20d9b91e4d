"""The evaluate command in one process, on the digits and a network whose weights are noise."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_tools import HERE, QUICK, evaluate, found_in, home_of
from extractor_tools import load_extractor
from sampling_tools import make_run, only_set

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.evaluate import main, parse
from cbdm_scale.evaluation.inputs import ImageSetSpec, find_inputs
from cbdm_scale.evaluation.report.images import report_images
from cbdm_scale.evaluation.store import read_evaluation
from cbdm_scale.generation.store import open_set
from cbdm_scale.metrics.classifier import load_classifier, save_classifier
from cbdm_scale.metrics.fid import fid
from cbdm_scale.metrics.sources import SplitImages
from cbdm_scale.sample import main as sample
from cbdm_scale.storage.folder import Storage

# ----------------------------------------------------------------------------
# What is found.


def test_the_numbers_are_those_of_the_images_that_were_made(
    evaluated, digits_root, random_classifier
):
    found = found_in(evaluated)
    assert [one.omega for one in found.sets] == [0, 2] and found.trained_images == 48
    assert (found.run, found.dataset, found.num_real) == ("noise", "digits_lt", 1797)
    extractor = load_extractor(random_classifier, "")
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


def test_strengths_by_group_give_each_group_the_numbers_of_its_strength(
    evaluated, random_classifier, tmp_path
):
    words = "--guidance", "many=0,medium=0,few=2", "--out", str(tmp_path), *QUICK
    assert evaluate(evaluated, random_classifier, *words) == 0
    [name] = Storage(str(tmp_path)).list()
    [found] = read_evaluation(Storage(str(tmp_path)).child(name)).sets
    assert found.omega == "many=0,medium=0,few=2"
    known = {one.omega: one.scores for one in found_in(evaluated).sets}
    for group, omega, other in (("many", 0, 2), ("medium", 0, 2), ("few", 2, 0)):
        name = f"sliced_wasserstein_{group}"
        gap, wrong = (abs(found.scores[name] - known[o][name]) for o in (omega, other))
        assert gap < wrong / 10
        assert found.scores[f"fidelity_{group}"] == known[omega][f"fidelity_{group}"]


def test_the_same_command_says_it_again_and_makes_nothing(
    evaluated_copy, random_classifier, capsys
):
    shutil.rmtree(Path(evaluated_copy, "samples"))
    before = sorted(
        p.stat().st_mtime_ns for p in home_of(evaluated_copy).local_path().iterdir()
    )
    assert evaluate(evaluated_copy, random_classifier, "--guidance", "0", "2", *HERE) == 0
    out = capsys.readouterr().out
    assert "omega" in out and "features of" not in out
    assert not Path(evaluated_copy, "samples").exists()
    after = sorted(p.stat().st_mtime_ns for p in home_of(evaluated_copy).local_path().iterdir())
    assert after == before


def test_what_decides_the_numbers_decides_the_folder(evaluated, random_classifier):
    words = ["--run", evaluated, "--extractor", random_classifier, "--guidance", "0", "2"]
    words += ["--num-images", "50"]

    def id_of(*more: str) -> str:
        options, pretrained, _ = parse([*words, *more])
        return find_inputs(options, pretrained).id

    assert id_of() == found_in(evaluated).id
    changes = [
        ("--num-images", "49"),
        ("--guidance", "0", "1"),
        ("--seed", "1"),
        ("--weights", "raw"),
        ("--no-memorisation",),
        ("--sample.num-steps", "4"),
        ("--chunk-size", "9"),
        ("--resize", "tf1"),
    ]
    ids = [id_of(*change) for change in [(), *changes]]
    assert len(set(ids)) == len(ids)
    assert id_of("--cluster.workers", "0", "--guidance", "2", "0", "0") == ids[0]


@pytest.mark.parametrize("form", ["npz", "png", "shards", "set"])
def test_images_in_any_form_give_the_numbers_of_the_set(
    evaluated, random_classifier, form, tmp_path
):
    words = ["--run", evaluated, "--guidance", "2", "--num-images", "50", *HERE]
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
    assert evaluate(evaluated, random_classifier, *more, *QUICK) == 0
    [name] = Storage(str(tmp_path / "found")).list()
    given, made = (
        read_evaluation(Storage(str(tmp_path / "found")).child(name)),
        found_in(evaluated).sets[1],
    )
    [one] = given.sets
    assert (one.images, one.omega, one.num_images) == (where, 2.0, 50)
    assert one.fid.value == pytest.approx(made.fid.value, rel=1e-6)
    assert one.fidelity == made.fidelity and one.memorisation == ()


def test_what_images_were_made_otherwise_than_the_runs_is_in_their_name(
    evaluated, random_classifier, tmp_path, digits_root
):
    """No two quantities share a name in MLflow, and the run's own has no further part."""

    def apart(*words, run=evaluated):
        said = ["--run", run, "--num-images", "20", "--extractor", random_classifier, *words]
        options, pretrained, _ = parse(said)
        return find_inputs(options, pretrained).sets[0].apart

    assert apart() == apart("--seed", "0", "--guidance", "3") == ()
    assert apart("--seed", "7") == ("seed_7",)
    assert apart("--sample.num-steps", "2", "--sample.eta", "0.5", "--seed", "7") == (
        *("sample.num_steps_2", "sample.eta_0.5", "seed_7"),
    )
    names = set()
    for seed in (0, 1):
        images = np.random.default_rng(seed).integers(0, 256, (20, 8, 8, 1), np.uint8)
        (tmp_path / f"{seed}").mkdir()
        np.savez(tmp_path / f"{seed}/a.npz", arr_0=images, arr_1=np.arange(20) % 10)
        (part,) = apart("--samples", str(tmp_path / f"{seed}/a.npz"))
        assert re.fullmatch(r"samples_a\.npz-[0-9a-f]{8}", part)
        names.add(part)
    assert len(names) == 2, "of one file name and other images"
    own = make_run(tmp_path, digits_root, images=(24, 48))
    assert apart("--guide", "24", run=own) == ()
    (part,) = apart("--guide", f"{own}/checkpoints/000000000024")
    assert re.fullmatch(r"guide_noise-[0-9a-f]{8}", part), "another run, of the same number"
    with_seed(own, 5)
    assert parse(["--run", own])[0].seed == 5 and apart(run=own) == ()
    assert apart("--seed", "0", run=own) == ("seed_0",)


def with_seed(run, seed):
    """Evaluations of the run on noise of this seed."""
    file = Path(run) / "config.json"
    config = json.loads(file.read_text())
    config["eval"]["seed"] = seed
    file.write_text(json.dumps(config))


def test_the_first_images_of_a_set_may_be_enough(evaluated, random_classifier, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.arange(20) % 10)
    more = ("--samples", str(tmp_path / "a.npz"), "--out", str(tmp_path / "found"))
    assert evaluate(evaluated, random_classifier, *more, "--num-images", "12", *QUICK) == 0
    assert evaluate(evaluated, random_classifier, *more, *QUICK) == 0
    found = Storage(str(tmp_path / "found"))
    sizes = [read_evaluation(found.child(name)).sets[0].num_images for name in found.list()]
    assert sorted(sizes) == [12, 20]


def test_too_few_images_are_no_crash_and_the_numbers_of_real_images_are_shown(
    evaluated_copy, random_classifier, capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(ProgressBar.__init__.__kwdefaults__, "every_s", 0.0)
    more = ("--num-images", "4", "--guidance", "0", "--out", str(tmp_path))
    assert evaluate(evaluated_copy, random_classifier, *more, *QUICK) == 0
    out = capsys.readouterr().out
    assert re.search(r"no precision, recall, density, coverage: .* more than 5 images", out)
    assert re.search(r"^ *23/23 numbers of real images \| ", out, re.MULTILINE)


def test_the_labels_of_a_set_follow_the_names_of_its_classes(
    evaluated, random_classifier, tmp_path
):
    made = Path(found_in(evaluated).sets[1].images)
    there = Path(shutil.copytree(made, tmp_path / "set"), "set.json")
    words = ["--run", evaluated, "--extractor", random_classifier, "--samples"]

    def given(names: str, where: str) -> ImageSetSpec:
        about = json.loads(there.read_text()) | {"class_names": [*names]}
        there.write_text(json.dumps(about))
        options, pretrained, _ = parse([*words, where])
        return find_inputs(options, pretrained).sets[0]

    same, turned = given("0123456789", str(made)), given("9876543210", str(there.parent))
    assert same.images.labels.tolist() == [*range(10)] * 5
    assert turned.images.labels.tolist() == [*range(9, -1, -1)] * 5
    assert turned.fingerprint != same.fingerprint and turned.omega == 2
    with pytest.raises(ValueError, match="samples: .* has not: x. Its classes are 0, 1"):
        given("x123456789", str(there.parent))


def test_a_classifier_of_another_order_of_the_classes_gives_the_same_numbers(
    evaluated, random_classifier, tmp_path, capsys
):
    net = load_classifier(random_classifier.partition(":")[2])
    for values in net.logits.parameters():
        values.copy_(values.roll(3, 0))
    file, names = tmp_path / "turned.safetensors", (*"789", *"0123456")
    more = ("--guidance", "2", "--out", str(tmp_path / "found"), *QUICK)
    file.write_bytes(save_classifier(net, names))
    assert evaluate(evaluated, f"classifier:{file}", *more) == 0
    [name] = Storage(str(tmp_path / "found")).list()
    [one] = read_evaluation(Storage(str(tmp_path / "found")).child(name)).sets
    made = found_in(evaluated).sets[1]
    assert one.fidelity == made.fidelity and one.fid.value == pytest.approx(made.fid.value)
    file.write_bytes(save_classifier(net, ("ten", *names[1:])))
    assert evaluate(evaluated, f"classifier:{file}", *more) == 1
    assert "turned.safetensors knows other classes" in capsys.readouterr().err


# ----------------------------------------------------------------------------
# What the report gets.


def test_the_report_gets_the_nearest_training_image_of_every_made_one(
    evaluated, digits_root, random_classifier, tmp_path
):
    train = SplitImages(digits_root, "digits_lt", "train")
    rows = [row for c in range(10) for row in (train.labels == c).nonzero()[0][:2].tolist()]
    pixels = train.read(rows).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "copies.npz", arr_0=pixels, arr_1=train.labels[rows])
    more = ["--samples", str(tmp_path / "copies.npz"), "--out", str(tmp_path / "found")]
    words = ["--run", evaluated, "--extractor", random_classifier, *more, *HERE]
    assert main(words) == 0
    options, pretrained, _ = parse(words)
    inputs = find_inputs(options, pretrained)
    evaluation = read_evaluation(inputs.home)
    pictures = report_images(inputs, evaluation)
    assert pictures.classes == (0, 1, 4, 5, 8, 9), "two of head, middle and tail"
    assert pictures.made.shape == pictures.nearest.shape == (6, 2, 1, 8, 8)
    assert torch.equal(pictures.made, pictures.nearest)
    kept = torch.from_numpy(train.read(rows)).view(10, 2, 1, 8, 8)
    assert torch.equal(pictures.made, kept[list(pictures.classes)])
    assert evaluation.sets[0].memorisation[0].copies == 1.0


def test_images_without_labels_leave_no_class_to_show(evaluated, random_classifier, tmp_path):
    images = np.zeros((9, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images)
    more = ["--samples", str(tmp_path / "a.npz"), "--out", str(tmp_path / "found")]
    options, pretrained, _ = parse(
        ["--run", evaluated, "--extractor", random_classifier, *more, *QUICK]
    )
    inputs = find_inputs(options, pretrained)
    assert evaluate(evaluated, random_classifier, *more, *QUICK) == 0
    pictures = report_images(inputs, read_evaluation(inputs.home))
    assert pictures.classes == () and pictures.made.shape[0] == 0 and pictures.nearest is None
