"""The train command as a user types it, for the tests that start Ray: launch, watch, kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow_server import Server

from cbdm_scale.storage.folder import Storage

ROOT = Path(__file__).parents[1]
FILES = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
KEEP_CLUSTER = """
import sys
from functools import partial
from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.options import ClusterConfig
module = sys.modules["cbdm_scale.cluster.connect"]
module.init_on_loopback = partial(module.init_on_loopback, num_gpus=int(sys.argv[1]))
connect(ClusterConfig(workers=1))
import ray
session = ray.nodes()[0]["RayletSocketName"].partition("/sockets/")[0]
print(ray.get_runtime_context().gcs_address, session, flush=True)
sys.stdin.readline()
ray.shutdown()
"""
SMALL = (
    *("--model.channels", "16", "--model.dropout", "0.1", "--train.log-every", "48"),
    *("--sample.num-steps", "4", "--eval.num-images", "60", "--train.warmup-images", "480"),
    *("--train.sample-every", "0"),
)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, random_classifier: str) -> Iterator[Path]:
    """A folder with the digits' shards, and one Ray cluster of this machine for all tests.

    Their feature classifier has learnt nothing: no test here asks how good an image is.
    """
    from data_prep.options import Options
    from data_prep.prepare import prepare

    folder = tmp_path_factory.mktemp("ray")
    prepare("digits-lt", Options(out=str(folder / "shards"), classifier=False, workers=0))
    shutil.copy(random_classifier.removeprefix("classifier:"), folder / "shards" / "digits_lt")
    with keep_cluster(gpus=0) as (address, session):
        (folder / "session").symlink_to(session)
        (folder / "address").write_text(address)
        yield folder


@contextmanager
def keep_cluster(gpus: int) -> Iterator[tuple[str, str]]:
    """Address and session of a cluster of its own, which RAY_ADDRESS names meanwhile.

    gpus: that it counts, whether they are there or not.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        keeper = subprocess.Popen(
            [sys.executable, "-c", KEEP_CLUSTER, str(gpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},  # that all workers have
        )
        assert keeper.stdout
        address, session = keeper.stdout.readline().split()
        patch.setenv("RAY_ADDRESS", address)
        yield address, session
    keeper.communicate("over\n", timeout=60)


PASSWORD = "planted-password-of-a-url/5d17"
"""Of the MLflow server that the run of ``killed`` logs to."""
IMAGES = 1_920
EVERY = "--train.save-every", "480", "--train.keep-checkpoints", "9"


@pytest.fixture(scope="session")
def killed(work: Path) -> str:
    """What the command prints of the run "killed-worker", of whose two workers one is killed.

    It logs to a server with a password, and stands in ``work``/runs for all tests. The files
    that its controller has mapped by then are named in ``work``/controller.txt.
    """
    server, log = Server(work / "server"), work / "killed-worker.log"
    server.start()
    address = server.uri.replace("//", f"//trainer:{quote(PASSWORD, safe='')}@")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", address)
            driver = start(command(work, "killed-worker", 2, IMAGES, *EVERY), log)
            wait_for(lambda: newest_checkpoint(work, "killed-worker") >= 480)
            os.kill(worker_pids(log)[1], signal.SIGKILL)  # Ray starts the group again
            for controller in processes_of(work, "ray::TrainController"):
                maps = Path(f"/proc/{controller}/maps").read_text()
                (work / "controller.txt").write_text(maps)
            assert driver.wait(280) == 0, log.read_text()[-3000:]
            return log.read_text()
    finally:
        server.signal(signal.SIGKILL)


def processes_of(work: Path, title: str) -> list[int]:
    """Processes of that title on the cluster of these tests, and on no other."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title_of_it = (folder / "cmdline").read_text()
            if title in title_of_it and str(work.parent) in (folder / "environ").read_text():
                found.append(int(folder.name))
        except OSError:  # it is over, or somebody else's
            continue
    return found


def command(work: Path, name: str, workers: int, images: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name),
        *("--data.root", str(work / "shards"), "--cluster.storage", str(work / "runs")),
        *("--cluster.workers", str(workers), "--train.total-images", str(images)),
        *("--cluster.cpus-per-worker", str(min(1.0, 1.9 / max(workers, 1))), *SMALL, *more),
    ]


def run(words: list[str], seconds: float = 280) -> str:
    """What the command prints; fails the test if the command fails."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=seconds)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_here(words: list[str]) -> int:
    """The exit status of the command in this process, which leaves the cluster after it."""
    import ray

    script, words = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
    module = script.removesuffix(".py").replace("/", ".")
    try:
        return int(import_module(module).main(words))
    finally:
        ray.shutdown()


STARTED: list[subprocess.Popen[bytes]] = []


def pytest_runtest_teardown() -> None:
    """What a failed test left would keep the cluster's CPUs, and all tests after it waiting."""
    while STARTED:
        with STARTED.pop() as left:
            left.kill()


def start(
    words: list[str], log: Path, *, start_new_session: bool = False
) -> subprocess.Popen[bytes]:
    """A command whose lines go to ``log``, in a process group of its own or in ours."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            words,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=start_new_session,
        )
    STARTED.append(process)
    return process


def worker_pids(log: Path) -> list[int]:
    """Process numbers of a run's workers, in the order of their ranks, as the run says them."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("workers ")]
    return [int(word.rpartition(":")[2]) for word in lines[-1].split()[2:]] if lines else []


def final_files(work: Path, name: str, images: int) -> dict[str, bytes]:
    folder = work / "runs" / name / "checkpoints" / f"{images:012d}"
    return {file: (folder / file).read_bytes() for file in FILES}


def newest_checkpoint(work: Path, name: str) -> int:
    """Images of the run's newest checkpoint; -1 before there is one."""
    folder = work / "runs" / name / "checkpoints"
    return max((int(f.name) for f in folder.glob("0*")), default=-1)


def wait_for(what: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_group(number: int) -> bool:
    """Whether a process group has any process."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def logged_steps(work: Path, name: str, key: str, tracker: str = "runs") -> list[int]:
    """The image counts at which MLflow has a metric of a run, in the order of logging.

    tracker: the folder of its database.
    """
    from cbdm_scale.tracking.client import make_client

    client = make_client(f"sqlite:///{work / tracker / 'mlflow.db'}")
    run_id = Storage(str(work / "runs" / name)).read_text("mlflow_run_id").strip()
    return [point.step for point in client.get_metric_history(run_id, key)]


def record_launch(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[float]:
    """A command's module then starts nothing; which time-outs it would give its workers."""
    asked: list[float] = []

    def launch(on_worker: Any, cluster: Any, run: Any) -> dict[str, Any]:
        asked.extend([cluster.timeout_s, on_worker.args[1]])
        return {}

    monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(module, "start_run", lambda *given: "")
    monkeypatch.setattr(module, "end_run_after", lambda uri, run_id, work: work())
    return asked
