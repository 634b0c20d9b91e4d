"""What the tests of tracking share: a run, its history in MLflow, an image, a checkpoint."""

import io

from PIL import Image

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking import start_run
from cbdm_scale.tracking.client import make_client


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
