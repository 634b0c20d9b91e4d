"""The scores of a comparison: those of the evaluate command, and weighed where these are."""

import json

import numpy as np
import pytest
import torch
from test_compare import COUNTS, blobs

from cbdm_scale.config import presets
from cbdm_scale.evaluation.floors import make_reference
from cbdm_scale.metrics.extract import FeatureSet
from cbdm_scale.metrics.fid import FrechetTo
from cbdm_scale.metrics.per_class import class_table
from cbdm_scale.metrics.reference import LabelledFeatures
from cbdm_scale.metrics.sliced_wasserstein import SlicedTo
from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset
from tune.compare import main
from tune.comparison.ranks import TOO_FEW
from tune.comparison.scores import (
    REAL,
    SHUFFLED,
    TRAINING,
    Scorer,
    halves_of,
    references,
    scorers,
)
from tune.comparison.sets import Features

TAIL = (200, 150, 100, 45, 35, 25, 20, 22, 18, 14)
"""Real images by class."""


def tailed(sizes, seed, shift=0.0, gap=3.0):
    """So many images of each class, a blob of its own in 4 dimensions."""
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(len(y), 4, generator=rng) + gap * y[:, None] + shift
    return Features(x, y, y.clone())


TRAIN = tailed((60, 50, 40, 30, 20, 20, 20, 9, 6, 3), 7, shift=0.3)
BALANCED, LIKE_REAL = tailed((20,) * 10, 1), tailed([n // 6 for n in TAIL], 2)


def test_imbalance_is_not_rewarded():
    """Of two sets the balanced one is nearer; without weights the one like the real images."""
    scorer, _ = scorers(tailed(TAIL, 0), TRAIN, COUNTS)
    sides = BALANCED, LIKE_REAL
    weighed = [scorer.scores(side) for side in sides]
    plain = [Scorer(scorer.real, TRAIN, COUNTS).scores(side) for side in sides]
    for score in ("fid", "fid_many", "mind", "mind_many"):
        assert weighed[0][score] < weighed[1][score] and plain[1][score] < plain[0][score]


def test_balanced_real_images_are_not_weighed():
    """The numbers are those of the distances as they are, to the bit."""
    fake = blobs(40, 1, shift=0.5)
    for scorer in scorers(blobs(80, 0), TRAIN, COUNTS):
        found, real = scorer.scores(fake), scorer.real
        worst = []
        for name, few in (("", range(10)), ("_many", range(3)), ("_few", range(7, 10))):
            a, b = (side.x[torch.isin(side.y, torch.tensor(few))] for side in (real, fake))
            assert found[f"fid{name}"] == FrechetTo(a)(b)
            assert found[f"mind{name}"] == SlicedTo(a)(b)
        for c in range(10):
            worst.append(SlicedTo(real.x[real.y == c])(fake.x[fake.y == c]))
        assert found["mind_worst"] == max(worst)
        assert found["mind_mean"] == sum(worst) / 10


@pytest.mark.parametrize("sizes", [(20,) * 10, TAIL])
def test_every_score_is_that_of_the_evaluate_command(sizes):
    """One definition a name: recall of equal numbers, FLD as the mean over classes."""
    real = tailed(sizes, 0)
    made = Features(BALANCED.x + 0.2, BALANCED.y, (BALANCED.x[:, 0] > 15).long())
    unseen = torch.arange(len(real.y)) % 7 > 0
    scorer = Scorer(real, TRAIN, COUNTS, unseen, weigh=sizes is TAIL)
    hashes = torch.where(unseen, torch.arange(len(real.y)), -1)
    refer = make_reference(
        FeatureSet(real.x, real.y, hashes),
        FeatureSet(TRAIN.x, TRAIN.y, torch.full((len(TRAIN.y),), -1)),
        COUNTS,
        weigh=sizes is TAIL,
    )
    fake = LabelledFeatures(made.x, made.y, made.seen == made.y)
    table = class_table(refer.real, fake, COUNTS, reference=refer, intervals=False)
    found = scorer.scores(made)
    for row in table.pooled:
        end = f"_{row.group}" if row.group else ""
        assert found[f"fid{end}"] == row.fid.value
        assert found[f"mind{end}"] == row.sliced_wasserstein.value
        assert found[f"fld{end}"] == row.fld.value
        assert found[f"kept{end}"] == row.fidelity.value
        assert found[f"recall{end}"] == row.recall
    assert found["mind_mean"] == pytest.approx(table.macro("sliced_wasserstein"))
    assert found["mind_worst"] == table.worst("sliced_wasserstein").sliced_wasserstein.value
    assert len(found) == 6 * 4 + 2, "those, and copies"
    assert found["recall"] < 1 and found["fld"] != found["fld_few"]


def test_a_class_of_one_real_image_has_it_in_both_halves():
    first, second = halves_of(torch.tensor([0, 0, 0, 1, 2, 2]))
    assert first.tolist() == [0, 2, 3, 4] and second.tolist() == [1, 3, 5]


def test_real_images_that_are_the_training_images_have_references():
    """A rare class has its images in turn, and there is no held-out image for FLD."""
    side = tailed((50, 30, 20, 12, 10, 8, 6, 5, 3, 1), 0)
    counts = torch.bincount(side.y).tolist()
    known = references(scorers(side, side, counts, torch.zeros(len(side.y)).bool()), 100)
    assert known[REAL]["fid_few"] < 5 < 20 < known[SHUFFLED]["fid_few"]
    assert known[TRAINING]["copies"] == 1 and "fld" not in known[REAL]


PROTOCOL = """
dataset: tail
control: ddpm
options:
  model: {channels: 8, multipliers: [1], num_blocks: 1, attention: [], groups: 4}
  train.batch_size: 16
  sample: {name: ddim, num_steps: 2}
num_images: 40
rows:
  ddpm: {preset: small}
screen: {seeds: [7], stops: [32, 64], strengths: [1]}
confirm: {seeds: [0], stops: [32], strengths: [1]}
"""


def test_a_comparison_with_its_training_images_says_so_wherever_its_numbers_are(
    tmp_path, random_classifier, capsys, monkeypatch
):
    """Some seconds: the one comparison of a data set without --eval-source."""
    sizes = (20, 12, 8, 6, 4, 3, 3, 2, 2, 1)
    labels = np.repeat(np.arange(10), sizes)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    split = Split.of_arrays(pixels, labels, "grey")
    source = Source(
        name="tail",
        class_names=tuple("0123456789"),
        image_size=8,
        channels=1,
        splits={"train": split, "eval": split},
        made="for a test",
        mirrors=False,
    )
    (tmp_path / "tail").mkdir()
    write_dataset(
        source, tmp_path / "tail", samples_per_shard=100, seed=0, log=lambda line: None
    )
    (tmp_path / "tail.yaml").write_text(PROTOCOL)
    words = ["--protocol", str(tmp_path / "tail.yaml"), "--data.root", str(tmp_path)]
    words += ["--cluster.storage", str(tmp_path), "--cluster.device", "cpu"]
    words += ["--extractor", random_classifier, "--parallel", "1"]
    assert main(words) == 0
    home, printed = tmp_path / "compare/tail/screen", capsys.readouterr().out
    said = "The real images have from 20 down to 1 a class (they are the training images)"
    assert printed.index(f"warning: {said}") < printed.index("1 networks in")
    assert (home / "table.md").read_text().startswith(f"warning: {said}")
    assert f'<li class="bad"><i>!</i><span>{said}' in (home / "report.html").read_text()
    found = json.loads((home / "findings.json").read_text())
    assert found["caution"].startswith(said)
    assert "weighed so that each class counts alike" in found["caution"]
    assert all(TOO_FEW in (home / name).read_text() for name in ("table.md", "report.html"))
    row = json.loads((home / "networks/ddpm-seed7/config.json").read_text())
    assert row["eval"]["recall_images"] == 1_000, "of the row small, for few training images"
    monkeypatch.setattr(presets, "LOOKED_AT", 60)
    assert presets.find_preset("tail", "small", str(tmp_path)).eval.recall_images == 0
    assert main([*words, "--dry-run"]) == 0
    assert f"warning: {said}" in capsys.readouterr().out
