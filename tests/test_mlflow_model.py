"""A registered model generates: labels, seeds and guidance strengths in, images out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tracking_tools import make_database

from cbdm_scale.pretrained.serve import generate_from_checkpoint
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client
from cbdm_scale.tracking.models import register
from cbdm_scale.tracking.runs import start_run


@pytest.fixture
def model(run: str, tmp_path: Path) -> Any:
    """What somebody else loads from the registry."""
    import mlflow

    uri, home = make_database(tmp_path), Storage(run)
    run_id = start_run(uri, "cbdm_scale", home, "a run", {}, {})
    checkpoint = home.path("checkpoints/000000000048")
    register(make_client(uri), home, run_id, 48, checkpoint, ["best"])
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.pyfunc.load_model("models:/noise@best")


def test_a_model_of_the_registry_makes_images_for_labels_and_omega(
    model: Any, run: str, tmp_path: Path
) -> None:
    import pandas

    folder = tmp_path / "flat"
    folder.mkdir()
    config, ema = Path(run, "config.json"), Path(run, "checkpoints/000000000048")
    (folder / "config.json").write_bytes(config.read_bytes())
    (folder / "ema.safetensors").write_bytes((ema / "ema.safetensors").read_bytes())

    rows = {"label": [3, 9, 3], "omega": [0.0, 40.0, 0.0], "seed": [5, 5, 5]}
    images = model.predict(pandas.DataFrame(rows))
    assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    unguided = generate_from_checkpoint(str(folder), [3, 3], seed=5, omega=0.0)
    assert np.array_equal(images[[0, 2]], unguided)
    guided = generate_from_checkpoint(str(folder), [9], seed=5, omega=40.0)
    assert np.array_equal(images[[1]], guided)
    usual = model.predict(pandas.DataFrame({"label": [9], "seed": [5]}))
    own = generate_from_checkpoint(str(folder), [9], seed=5, omega=1.0)  # the run's omega
    assert np.array_equal(usual, own) and not np.array_equal(usual, guided)
    with pytest.raises(ValueError, match="omega must be at least 0, got -1. Try 1"):
        model.predict(pandas.DataFrame({"label": [9], "omega": [-1.0]}))
