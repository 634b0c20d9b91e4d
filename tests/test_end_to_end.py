"""The main job as a user types it: real Ray workers, real kills, real MLflow on sqlite.

One cluster on loopback is shared by the file's tests (`RAY_ADDRESS` finds it).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cbdm_scale.storage import Storage

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[1]
FILES = "model.safetensors", "ema.safetensors", "optimizer.safetensors"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the digits' shards, and a Ray cluster of this machine alone."""
    folder = tmp_path_factory.mktemp("end_to_end")
    environment = dict(os.environ)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    os.environ["CBDM_SCALE_CACHE"] = str(folder / "cache")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ["RAY_ADDRESS"] = "local"
    from data_prep.prepare import Options, prepare

    prepare("digits-lt", Options(out=str(folder / "shards")))
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEP_CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert keeper.stdout
    os.environ["RAY_ADDRESS"] = keeper.stdout.readline().strip()
    os.environ["RAY_AUTH_MODE"] = "token"
    yield folder
    keeper.communicate("over\n", timeout=60)
    os.environ.clear()
    os.environ.update(environment)


KEEP_CLUSTER = """
import sys
from cbdm_scale.cluster import ClusterConfig, connect
connect(ClusterConfig(workers=1))
import ray
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.readline()
ray.shutdown()
"""

SMALL = (
    *("--model.channels", "16", "--model.dropout", "0.1", "--train.log-every", "48"),
    *("--sample.num-steps", "4", "--eval.num-images", "60", "--train.warmup-images", "480"),
    *("--train.sample-every", "0"),
)


def command(work: Path, name: str, workers: int, images: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name),
        *("--data.root", str(work / "shards"), "--cluster.storage", str(work / "runs")),
        *("--cluster.workers", str(workers), "--train.total-images", str(images)),
        *("--cluster.cpus-per-worker", str(min(1.0, 1.9 / workers)), *SMALL, *more),
    ]


def run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def final_files(work: Path, name: str, images: int) -> dict[str, bytes]:
    folder = work / "runs" / name / "checkpoints" / f"{images:012d}"
    return {file: (folder / file).read_bytes() for file in FILES}


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)


def worker_pids(log: Path) -> list[int]:
    """Process numbers of a run's workers, in the order of their ranks, as the run says them."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("workers ")]
    return [int(word.rpartition(":")[2]) for word in lines[-1].split()[2:]]


def checkpoints(work: Path, name: str) -> int:
    folder = work / "runs" / name / "checkpoints"
    return len([f for f in folder.glob("0*") if f.is_dir()]) if folder.exists() else 0


def metric_history(work: Path, name: str, key: str) -> list[int]:
    from cbdm_scale.tracking.client import make_client

    client = make_client(f"sqlite:///{work / 'runs' / 'mlflow.db'}")
    run_id = Storage(str(work / "runs" / name)).read_text("mlflow_run_id").strip()
    return [point.step for point in client.get_metric_history(run_id, key)]


IMAGES = 1_920


def test_killed_worker_and_killed_driver_end_in_the_bits_of_the_unbroken_run(
    work: Path,
) -> None:
    """DESIGN 4: killed anywhere and resumed, dropout on, the same weights, EMA and optimiser."""
    every = ("--train.save-every", "480", "--train.keep", "9")
    out = run(command(work, "unbroken", 2, IMAGES, *every))
    assert "FID" in out and "mlflow ui" in out and "finished at 1,920 images" in out

    # One worker dies; Ray starts the group again; nobody types anything.
    words = command(work, "killed", 2, IMAGES, *every, "--data.prefetch", "2")
    driver = start(words, work / "killed.log")
    wait_for(lambda: checkpoints(work, "killed") >= 1)
    os.kill(worker_pids(work / "killed.log")[1], signal.SIGKILL)
    wait_for(lambda: checkpoints(work, "killed") >= 2)
    # Then the driver dies, and the same command goes on.
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    out = run(words)
    assert "resumed from" in out

    assert final_files(work, "killed", IMAGES) == final_files(work, "unbroken", IMAGES)
    steps = metric_history(work, "killed", "loss/total")
    assert steps == list(range(48, IMAGES + 1, 48)), "every metric once, none twice"


def test_sigterm_saves_and_the_same_command_goes_on(work: Path) -> None:
    words = command(work, "stopped", 2, 96_000, "--train.save-every", "96000")
    driver = start(words, work / "stopped.log")
    spool = work / "runs" / "stopped" / "tracking"
    wait_for(lambda: spool.exists() and any(f.stat().st_size for f in spool.glob("*.jsonl")))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=60) == 0
    assert "the same command goes on" in (work / "stopped.log").read_text()
    newest = max((work / "runs" / "stopped" / "checkpoints").glob("0*"))
    images = json.loads((newest / "state.json").read_text())["progress"]["images"]
    assert 0 < images < 96_000


def test_more_workers_than_cpus_is_said_at_once(work: Path) -> None:
    words = command(work, "crowd", 2, 480) + ["--cluster.workers", "24"]
    words[words.index("--cluster.cpus-per-worker") + 1] = "100"
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert "cluster.workers (24) x cluster.cpus_per_worker (100)" in done.stderr
    assert not (work / "runs" / "crowd").exists()
