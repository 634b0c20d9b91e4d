"""Noise, copies of training images and a collapsed set of digits: the words say what is wrong.

Features are the pixels, and the classifier takes an image for the class of the nearest mean.
"""

import re
from dataclasses import replace

import pytest
import torch
from report_tools import example
from sklearn.datasets import load_digits

from cbdm_scale.evaluation.cautions import cautions
from cbdm_scale.evaluation.floors import held_out_copies, make_reference, real_floors
from cbdm_scale.evaluation.report.claims import headline
from cbdm_scale.evaluation.report.page import write_report
from cbdm_scale.evaluation.set_metrics import compute_metrics
from cbdm_scale.evaluation.summary import table
from cbdm_scale.metrics.extract import FeatureSet

COUNTS = [100, 70, 40, 30, 20, 12, 8, 5, 3, 3]
NUM_FAKE = 300


def digits():
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
    means = torch.stack([x[y == c].mean(0) for c in range(10)])

    def some(pool, labels, hashes):
        return FeatureSet(pool, labels, hashes, -torch.cdist(pool, means))

    real = some(x[:1000], y[:1000], torch.arange(1000))
    rows = [1000 + (y[1000:] == c).nonzero().flatten()[:n] for c, n in enumerate(COUNTS)]
    rows = torch.cat([part[:n] for part, n in zip(rows, COUNTS, strict=True)])
    return real, some(x[rows], y[rows], rows), some


@pytest.fixture(scope="module")
def evaluate():
    real, train, some = digits()
    reference = make_reference(real, train, COUNTS)
    floor, shuffled = real_floors(real, NUM_FAKE, COUNTS)
    held = held_out_copies(train, real, COUNTS)
    labels = torch.arange(NUM_FAKE) % 10
    rng = torch.Generator().manual_seed(0)

    def of_class(side, c, n):
        mine = side.pool[side.labels == c]
        return mine[torch.randint(len(mine), (n,), generator=rng)]

    def made(kind):
        if kind == "noise":
            return torch.randint(0, 17, (NUM_FAKE, 64), generator=rng).float()
        pool = torch.empty(NUM_FAKE, 64)
        for c in range(10):
            n = int((labels == c).sum())
            side, source = (train, c) if kind == "copies" else (real, 3 if "one" in kind else c)
            pool[labels == c] = of_class(side, source, n)
            if kind == "same image":
                pool[labels == c] = real.pool[real.labels == c][0]
        return pool + 0.3 * torch.randn(pool.shape, generator=rng)

    def evaluation(kind):
        fake = some(made(kind), labels, torch.arange(NUM_FAKE) + 9000)
        best = compute_metrics(
            reference, fake, COUNTS, omega=1.0, guidance_mode="cfg", intervals=False
        )
        return replace(
            example(10, omegas=(1.0,)),
            sets=(best,),
            floor=floor,
            shuffled=shuffled,
            num_real=1000,
            held_out_copies=held,
            class_names=tuple("0123456789"),
        )

    return evaluation


def test_noise_is_called_a_guess(evaluate):
    found = evaluate("noise")
    assert "as a guess would" in headline(found)
    assert "The images show no class" in table(found)[0]
    assert found.best.fld.value > 20 and found.best.fid.value > 10 * found.floor.fid.value


def test_copies_are_called_copies_although_their_distances_are_small(evaluate):
    found = evaluate("copies")
    assert "are near-copies of training images" in headline(found)
    assert found.best.memorisation[0].copies > 0.95
    assert "warning: More copies than chance gives" in table(found)[0]
    assert found.best.fld.value > 20, "held-out images are not explained"
    many = found.best.table.classes[0]
    assert (
        many.sliced_wasserstein.value
        < 4 * found.floor.table.classes[0].sliced_wasserstein.value
    )


def test_one_class_for_all_labels_is_named(evaluate, tmp_path):
    found = evaluate("one class")
    said = "show '3' whatever was asked"
    assert said in headline(found)
    assert "of the images show '3': the other classes are missing" in table(found)[0]
    [page, *_] = write_report(found, None, tmp_path)
    assert "the other classes are missing" in page.read_text("utf-8")


def test_one_image_a_class_is_no_praise(evaluate):
    found = evaluate("same image")
    assert found.best.fidelity.value > 0.7 and found.best.precision > 0.9
    assert any("all lie in the same few places" in said for said in cautions(found))
    assert found.best.recall < 0.1 and found.best.fld.value > 20


def test_real_images_are_not_warned_of_and_every_number_has_its_floor(evaluate):
    found = evaluate("real")
    assert cautions(found) == () and "near-copies" not in headline(found)
    lines = table(found)
    assert [line.split()[0] for line in lines[:4]] == ["omega", "1", "real", "guess"]
    groups = [line.split()[0] for line in lines if line.split()[:1] == ["real"]]
    assert len(groups) == 5, "all sets, and four rows of groups"
    below = [line for line in lines if line.split()[:1] == ["shuffled"]]
    kept = [float(re.search(r"([\d.]+)% \[", line)[1]) for line in below]
    assert len(kept) == 4 and max(kept) < 25, "under each group what chance gives"
    assert [line for line in lines if line.startswith(("        mean", "worst"))]
