"""A real MLflow server that is stopped, killed and restarted; checkpoints as its models."""

import json
import signal
import sys
import time
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_server import Server
from tracking_tools import begin, history, make_checkpoint, make_database, make_png

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client
from cbdm_scale.tracking.models import register
from cbdm_scale.tracking.tracker import MlflowTracker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    if server.process is not None:
        server.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    folder = tmp_path_factory.mktemp("a store")
    make_database(folder)
    return Storage(str(folder))


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "digits_lt-cbdm-0123abcd"))


@pytest.fixture
def uri(database: Storage) -> str:
    return f"sqlite:///{database.path('mlflow.db')}"


def predict(uri: str, model: str) -> Any:
    import mlflow
    import pandas

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    rows = pandas.DataFrame({"label": [3, 1, 2], "seed": [5, 6, 5]})
    return mlflow.pyfunc.load_model(model).predict(rows)


def generate_from_checkpoint(folder: str, labels: list[int], seed: int, omega: None) -> Any:
    """Images whose pixels tell what they were made of."""
    images = int(Path(folder, "ema.safetensors").read_text())
    assert json.loads(Path(folder, "config.json").read_text())["data"] == "digits_lt"
    values = [[label, seed, images] for label in labels]
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 3)


@pytest.mark.parametrize("place", ["sqlite", "http"])
def test_a_checkpoint_is_a_model_that_generates(
    place: str, uri: str, run: Storage, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if place == "http":
        uri = request.getfixturevalue("server").uri
    serve = types.ModuleType("cbdm_scale.pretrained.serve")
    serve.generate_from_checkpoint = generate_from_checkpoint  # type: ignore[attr-defined]
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setitem(sys.modules, "cbdm_scale.pretrained.serve", serve)
    run = Storage(str(tmp_path / f"run:{place}"))
    run_id = begin(uri, run)
    tracker = MlflowTracker(run, uri, run_id)
    tracker.model(64, make_checkpoint(run, 64), ["newest", "best"])
    tracker.model(128, make_checkpoint(run, 128), ["newest"])
    tracker.model(192, run.path("checkpoints/192"), ["newest"])  # already deleted again
    assert tracker.close(60) == 0
    for alias, images in ("newest", 128), ("best", 64):
        found = predict(uri, f"models:/run_{place}@{alias}")
        assert found.dtype == np.uint8
        assert found.reshape(3, 3).tolist() == [[3, 5, images], [1, 6, images], [2, 5, images]]
    client = make_client(uri)
    version = client.get_model_version_by_alias(f"run_{place}", "newest")
    assert version.tags["checkpoint"] == run.path("checkpoints/128")
    folder = Path(client.download_artifacts(run_id, "models", str(tmp_path)))
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"ema.safetensors", "config.json", "mlflow_model.py", "MLmodel"} <= files
    assert not any(name.endswith((".pkl", ".pickle", ".pt")) for name in files)


def test_a_remote_checkpoint_is_registered_too(uri: str) -> None:
    run = Storage(f"memory://{uuid.uuid4().hex}/remote-run")
    run_id = begin(uri, run)
    register(make_client(uri), run, run_id, 64, make_checkpoint(run, 64), ["newest"])
    files = make_client(uri).list_artifacts(run_id, "models/000000000064/artifacts")
    assert [Path(file.path).name for file in files] == ["config.json", "ema.safetensors"]


def test_with_the_server_away_training_goes_on_and_nothing_is_lost(
    server: Server, run: Storage
) -> None:
    run_id = begin(server.uri, run)
    tracker = MlflowTracker(run, server.uri, run_id)
    tracker.scalars(0, {"loss": 0.0})
    while tracker.spool.unsent:
        time.sleep(0.05)
    server.signal(signal.SIGSTOP)  # accepts connections, never answers
    for step in range(1, 300):
        tracker.scalars(step, {"loss": float(step)})
    assert tracker.spool.unsent == 299  # had a call waited, the test would have timed out
    server.signal(signal.SIGKILL)
    tracker.image(300, "samples", make_png())
    for step in range(300, 500):
        tracker.scalars(step, {"loss": float(step)})
    tracker.flush()
    assert tracker.close(0.5) == 500

    assert begin(server.uri, run) == run_id  # restarted with the server away
    tracker = MlflowTracker(run, server.uri, run_id)
    for step in range(450, 600):
        tracker.scalars(step, {"loss": float(step)})
    server.start()
    assert tracker.close(60) == 0
    assert history(server.uri, run_id, "loss") == [(i, float(i)) for i in range(600)]
    assert len(make_client(server.uri).list_artifacts(run_id, "images")) == 2
