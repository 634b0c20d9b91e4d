"""A run of a noise network on the digits that the evaluate command has judged."""

import shutil
from pathlib import Path

import pytest
import torch
from sampling_tools import make_run

from cbdm_scale.evaluate import main
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.evaluation.store import read_evaluation
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.storage.folder import Storage

HERE = ("--cluster.workers", "0")
QUICK = ("--no-memorisation", *HERE)


@pytest.fixture(scope="session")
def random_classifier(once) -> str:
    def make(folder: Path) -> None:
        torch.manual_seed(0)
        net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
        folder.mkdir()
        (folder / "classifier.safetensors").write_bytes(save_classifier(net))

    return f"classifier:{once('classifier', make)}/classifier.safetensors"


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, digits_root, random_classifier) -> str:
    """A run that was evaluated at omega 0 and 2. Read only."""
    run = make_run(tmp_path_factory.mktemp("evaluated"), digits_root)
    assert evaluate(run, random_classifier, "--guidance", "2", "0", *HERE) == 0
    return run


@pytest.fixture
def evaluated_copy(evaluated, tmp_path) -> str:
    """The same run, which a test may change."""
    shutil.copytree(evaluated, tmp_path / "runs" / "noise")
    return str(tmp_path / "runs" / "noise")


def evaluate(run: str, extractor: str, *words: str) -> int:
    number = () if "--samples" in words else ("--num-images", "50")
    return main(["--run", run, "--extractor", extractor, *number, *words])


def home_of(run: str) -> Storage:
    [name] = Storage(run).child("evaluation").list()
    return Storage(f"{run}/evaluation/{name}")


def found_in(run: str) -> Evaluation:
    found = read_evaluation(home_of(run))
    assert found is not None
    return found
