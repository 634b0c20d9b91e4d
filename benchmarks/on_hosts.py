"""What is asked on hosts, whose network is not ours: servers, and what a run has left."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.hosts import Hosts, wait_for

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
S3_PORT, MLFLOW_PORT = 5555, 5000
WEIGHTS = """
import hashlib, json, sys
from cbdm_scale.storage.folder import Storage
folder = Storage(sys.argv[1])
files = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
print(json.dumps({f: hashlib.sha256(folder.read_bytes(f)).hexdigest() for f in files}))
"""
LOSSES = """
import json, sys
from cbdm_scale.storage.folder import Storage
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


def weights(hosts: Hosts, run: str, images: int) -> dict[str, str]:
    """sha256 of the final weights, average and optimiser of a run's folder or URL."""
    words = [sys.executable, "-c", WEIGHTS, f"{run}/checkpoints/{images:012d}"]
    found: dict[str, str] = json.loads(hosts.run(0, words))
    return found


def losses(hosts: Hosts, uri: str, run: str) -> list[tuple[int, float]]:
    """(images, loss) of every step, as MLflow has them."""
    points = json.loads(hosts.run(0, [sys.executable, "-c", LOSSES, uri, run]))
    return [(int(step), float(value)) for step, value in points]


def alone(hosts: Hosts, host: int, words: list[str], folder: Path) -> None:
    """A command on a host that starts a Ray of its own, on loopback."""
    own = ["env", "RAY_ADDRESS=local", f"TMPDIR={folder}", *words]
    hosts.run(host, own)


def start_servers(hosts: Hosts, folder: Path) -> str:
    """An S3 endpoint and MLflow on the head; MLflow's address."""
    start_s3(hosts, folder)
    return start_mlflow(hosts, folder)


def start_s3(hosts: Hosts, folder: Path) -> "subprocess.Popen[bytes]":
    """An S3 endpoint on the head, from when it answers."""
    words = ["-m", "moto.server", "-H", hosts.address(0), "-p", str(S3_PORT)]
    process = hosts.start(0, [sys.executable, *words], folder / "s3.log")
    wait_for(lambda: answers(hosts, S3_PORT), 90, f"{folder}/s3.log: nothing answers")
    return process


def start_mlflow(hosts: Hosts, folder: Path) -> str:
    """MLflow's server on the head, from when it answers; its address."""
    here = hosts.address(0)
    words = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", here]
    words += [
        "--port",
        str(MLFLOW_PORT),
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
    ]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    hosts.start(0, words, folder / "mlflow.log", quiet)
    wait_for(lambda: answers(hosts, MLFLOW_PORT), 90, f"{folder}/mlflow.log: nothing answers")
    return f"http://{here}:{MLFLOW_PORT}"


def answers(hosts: Hosts, port: int) -> bool:
    """Whether something on the head takes a connection."""
    ask = f"import socket; socket.create_connection(({hosts.address(0)!r}, {port}), 1)"
    try:
        hosts.run(0, [sys.executable, "-c", ask])
    except RuntimeError:
        return False
    return True
