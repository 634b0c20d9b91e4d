"""A data set with a tail, classifiers that guess, and the balance command on them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cbdm_scale.balancing import inputs as inputs_module
from cbdm_scale.balancing.__main__ import main
from cbdm_scale.balancing.filters import Looks
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from data_prep.options import Options
from data_prep.prepare import prepare

HERE = ("--cluster.workers", "0", "--chunk-size", "10")
NAME = "tail_balanced"
COUNTS = (24, 9, 2)


@pytest.fixture(scope="session")
def tail_root(tmp_path_factory) -> str:
    """Three classes of 24, 9 and 2 images, and 21 held-out ones of each. Read only."""
    folder = str(tmp_path_factory.mktemp("tail"))
    counts = ",".join(map(str, COUNTS))
    options = Options(
        out=folder,
        name="tail",
        counts=counts,
        eval_per_class=21,
        resolution=8,
        classifier=False,
        workers=0,
    )
    prepare("synthetic", options, log=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory) -> tuple[str, str]:
    return "--classifiers", save_random(tmp_path_factory.mktemp("classifier"), 3)


def save_random(folder: Path, num_classes: int, image_size: int = 8) -> str:
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=3, image_size=image_size, num_classes=num_classes)
    (folder / "classifier.safetensors").write_bytes(save_classifier(net))
    return str(folder / "classifier.safetensors")


def see_right(monkeypatch, sure=1.0) -> None:
    """The classifier sees the class that was asked for, every other time as surely as said."""
    look = inputs_module.Inputs.look

    def right(self, images, what) -> Looks:
        found = look(self, images, what)
        confidence = torch.ones(len(found.labels), dtype=torch.float64)
        confidence[::2] = sure
        return replace(found, confidence=confidence, predicted=found.labels)

    monkeypatch.setattr(inputs_module.Inputs, "look", right)


def balance(run, classifiers, out, *words) -> int:
    return main(["--run", run, *classifiers, "--out", str(out), *HERE, *words])
