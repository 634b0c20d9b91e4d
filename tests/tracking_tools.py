"""What the tests of tracking share: a database, a run, its history in MLflow, a checkpoint."""

import io
import tempfile
from functools import cache
from pathlib import Path

from PIL import Image

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.client import make_client
from cbdm_scale.tracking.runs import start_run


@cache
def _empty_database() -> bytes:
    """Made once a process: MLflow needs a second of the processor for its tables."""
    with tempfile.TemporaryDirectory() as folder:
        make_client(f"sqlite:///{folder}/mlflow.db").search_experiments()
        return Path(folder, "mlflow.db").read_bytes()


def make_database(folder: str | Path) -> str:
    """The URI of a new database ``folder``/mlflow.db whose tables are there already."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "mlflow.db").write_bytes(_empty_database())
    return f"sqlite:///{folder}/mlflow.db"


def begin(uri: str, run: Storage, params: dict[str, str] | None = None) -> str:
    return start_run(uri, "cbdm_scale", run, "a run", params or {}, {"git": "abc"})


def history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    found = make_client(uri).get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def make_png(level: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (300, 20), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def make_checkpoint(run: Storage, images: int) -> str:
    run.write_json("config.json", {"data": "digits_lt"})
    folder = run.child(f"checkpoints/{images}")
    folder.write_bytes("ema.safetensors", str(images).encode())
    return folder.url
