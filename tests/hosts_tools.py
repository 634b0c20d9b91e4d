"""What the tests on several hosts ask there: their network is not that of the test process."""

import json
import sys
from pathlib import Path

from ray_tools import SMALL

from benchmarks.hosts import Hosts, wait_for

S3_PORT, MLFLOW_PORT = 5555, 5000
WEIGHTS = """
import hashlib, json, sys
from cbdm_scale.storage import Storage
folder = Storage(sys.argv[1])
files = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
print(json.dumps({f: hashlib.sha256(folder.read_bytes(f)).hexdigest() for f in files}))
"""
LOSSES = """
import json, sys
from cbdm_scale.storage import Storage
from cbdm_scale.tracking.client import make_client
run = Storage(sys.argv[2]).read_text("mlflow_run_id").strip()
found = make_client(sys.argv[1]).get_metric_history(run, "loss/total")
print(json.dumps([[point.step, point.value] for point in found]))
"""
BUCKET = """
import boto3, os, sys
from pathlib import Path
s3 = boto3.client("s3")
s3.create_bucket(Bucket="bucket")
for path in Path(sys.argv[1]).rglob("*"):
    if path.is_file():
        s3.upload_file(str(path), "bucket", f"shards/{path.relative_to(sys.argv[1])}")
"""


def train(
    name: str, workers: int, images: int, root: str, storage: str, *more: str
) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name),
        *("--data.root", root, "--cluster.storage", storage),
        *("--cluster.workers", str(workers), "--train.total-images", str(images)),
        *(*SMALL, "--eval.extractor", "none", *more),
    ]


def weights(hosts: Hosts, run: str, images: int) -> dict[str, str]:
    """sha256 of the final weights, average and optimiser of a run's folder or URL."""
    words = [sys.executable, "-c", WEIGHTS, f"{run}/checkpoints/{images:012d}"]
    found: dict[str, str] = json.loads(hosts.run(0, words))
    return found


def losses(hosts: Hosts, uri: str, run: str) -> list[tuple[int, float]]:
    """(images, loss) of every step, as MLflow has them."""
    told = json.loads(hosts.run(0, [sys.executable, "-c", LOSSES, uri, run]))
    return [(int(step), float(value)) for step, value in told]


def alone(hosts: Hosts, host: int, words: list[str], folder: Path) -> None:
    """A command on a host that starts a Ray of its own, on loopback."""
    own = ["env", "RAY_ADDRESS=local", f"TMPDIR={folder}", *words]
    hosts.run(host, own)


def start_servers(hosts: Hosts, folder: Path) -> str:
    """An S3 endpoint and MLflow on the head; MLflow's address."""
    here, python = hosts.address(0), sys.executable
    s3 = [python, "-m", "moto.server", "-H", here, "-p", str(S3_PORT)]
    hosts.start(0, s3, folder / "s3.log")
    mlflow = [
        *(python, "-m", "mlflow", "server", "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--host", here, "--port", str(MLFLOW_PORT)),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    hosts.start(0, mlflow, folder / "mlflow.log", quiet)
    for port in (S3_PORT, MLFLOW_PORT):
        ask = f"import socket; socket.create_connection(({here!r}, {port}), 1)"

        def answers(ask: str = ask) -> bool:
            try:
                hosts.run(0, [python, "-c", ask])
            except RuntimeError:
                return False
            return True

        wait_for(answers, 90, f"nothing answers on port {port} of the head")
    return f"http://{here}:{MLFLOW_PORT}"
