"""Training over hosts with addresses of their own gives what one host gives; a host may die.

Root and iproute2: ``make test-cluster``. The hosts are network namespaces (benchmarks.hosts).
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_tools import SMALL

from benchmarks.hosts import (
    ACCOUNT,
    S3_PORT,
    Hosts,
    environment,
    losses,
    make_bucket,
    processes,
    start_mlflow,
    start_s3,
    wait_for,
    weights,
    why_not,
)
from cbdm_scale.storage.folder import Storage
from tune.trials import TrialStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
IMAGES = 1_920
EVERY = ("--train.save-every", "480", "--train.keep-checkpoints", "9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data_prep.options import Options
    from data_prep.prepare import prepare

    folder = tmp_path_factory.mktemp("hosts")
    prepare("digits-lt", Options(out=str(folder / "shards"), workers=0))
    return folder


@pytest.fixture(scope="module")
def hosts(folder: Path) -> Iterator[Hosts]:
    """A head and three hosts that take a worker each."""
    if problem := why_not():
        pytest.skip(problem)
    bucket = {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://{Hosts.address(0)}:{S3_PORT}"}
    with Hosts(4, environment(folder) | bucket) as hosts:
        hosts.start_ray()
        yield hosts


@pytest.fixture(scope="module")
def one_host(hosts: Hosts, folder: Path) -> dict[str, str]:
    """The final weights of two workers on one host."""
    words = train("one", 2, IMAGES, f"{folder}/shards", f"{folder}/runs", *EVERY)
    alone(hosts, 3, words, folder)
    return weights(hosts, f"{folder}/runs/one", IMAGES)


def test_two_hosts_train_the_bits_of_one(
    hosts: Hosts, folder: Path, one_host: dict[str, str]
) -> None:
    """A worker needs a CPU and a host has one, so that two workers are on two hosts."""
    hosts.run(0, train("two", 2, IMAGES, f"{folder}/shards", f"{folder}/runs", *EVERY))
    assert weights(hosts, f"{folder}/runs/two", IMAGES) == one_host


def test_three_hosts_have_the_losses_of_one(hosts: Hosts, folder: Path) -> None:
    """Without dropout, whose masks follow the ranks: the same to 1e-5 over 40 steps."""
    found = []
    for name, workers in (("one-plain", 2), ("three-plain", 3)):
        plain = ("--model.dropout", "0")
        root, storage = f"{folder}/shards", f"{folder}/runs"
        words = train(name, workers, IMAGES, root, storage, *EVERY, *plain)
        if workers == 2:
            alone(hosts, 3, words, folder)
        else:
            hosts.run(0, words)
        found.append(losses(hosts, f"sqlite:///{storage}/mlflow.db", f"{storage}/{name}"))
    one, three = found
    assert [step for step, _ in three] == [step for step, _ in one]
    assert len(one) == IMAGES // 48
    assert [v for _, v in three] == pytest.approx([v for _, v in one], rel=1e-5)


def test_a_bucket_and_a_tracker_on_another_host_change_nothing(
    hosts: Hosts, folder: Path, one_host: dict[str, str]
) -> None:
    start_s3(hosts, folder)
    uri = start_mlflow(hosts, folder)
    hosts.ask(0, make_bucket, f"{folder}/shards")
    more = (*EVERY, "--track.uri", uri)
    hosts.run(0, train("remote", 2, IMAGES, "s3://bucket/shards", "s3://bucket/runs", *more))
    assert weights(hosts, "s3://bucket/runs/remote", IMAGES) == one_host
    assert len(losses(hosts, uri, "s3://bucket/runs/remote")) == IMAGES // 48


def test_preflight_names_the_host_that_sees_no_storage(hosts: Hosts, folder: Path) -> None:
    options = ["--data.root", f"{folder}/shards", "--cluster.storage", f"{folder}/runs"]
    words = [sys.executable, "-m", "cbdm_scale.preflight", *options]
    told = hosts.run(0, words)
    assert all(hosts.address(host) in told for host in (1, 2, 3))
    hosts.kill(3)
    hosts.start_ray([3], hidden={3: folder / "runs"})
    with pytest.raises(RuntimeError, match=rf"node {hosts.address(3)} .*storage"):
        hosts.run(0, words)
    hosts.kill(3)
    hosts.start_ray([3])


def test_a_host_that_dies_costs_seconds_and_no_bit(
    hosts: Hosts, folder: Path, one_host: dict[str, str]
) -> None:
    """Every process of a host with a worker is killed; the third host takes its place."""
    words = train("hurt", 2, IMAGES, f"{folder}/shards", f"{folder}/runs", *EVERY)
    log, checkpoints = folder / "hurt.log", folder / "runs" / "hurt" / "checkpoints"
    driver = hosts.start(0, words, log)
    wait_for(lambda: any(checkpoints.glob("0*")), 180, f"a checkpoint: {log.read_text()}")
    victim = next(host for host in (1, 2, 3) if trains(host))
    hosts.kill(victim)
    assert driver.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert "resumed from" in log.read_text()
    assert weights(hosts, f"{folder}/runs/hurt", IMAGES) == one_host
    hosts.start_ray([victim])


def test_a_host_that_dies_in_a_search_changes_no_value_of_it(
    hosts: Hosts, folder: Path
) -> None:
    """The trial goes on from its checkpoint on other hosts; the records are a calm search's."""
    calm = search(folder, "calm")
    hosts.run(0, calm, 900)
    log, runs = folder / "search.log", folder / "runs/search/rough/trials"
    driver = hosts.start(0, search(folder, "rough"), log)
    wait_for(lambda: any(runs.glob("*/checkpoints/0*/state.json")), 300, log.read_text())
    victim = next(host for host in (1, 2, 3) if trains(host))
    hosts.kill(victim)
    assert driver.wait(timeout=900) == 0, log.read_text()[-3000:]
    assert outcomes(folder, "rough") == outcomes(folder, "calm")
    assert len(outcomes(folder, "rough")) == 3
    hosts.start_ray([victim])


def alone(hosts: Hosts, host: int, words: list[str], folder: Path) -> None:
    """A command on a host that starts a Ray of its own, on loopback."""
    own = ["env", "RAY_ADDRESS=local", f"TMPDIR={folder}", *words]
    hosts.run(host, own)


def search(folder: Path, name: str) -> list[str]:
    return [
        *(sys.executable, "tune/search_tau.py", "--dataset", "digits_lt", "--name", name),
        *("--data.root", f"{folder}/shards", "--cluster.storage", f"{folder}/runs"),
        *("--track.uri", f"sqlite:///{folder}/runs/mlflow.db", "--cluster.workers", "2"),
        *("--trials", "3", "--searcher", "random", "--scheduler", "all", "--finalists", "0"),
        *("--at-once", "1", "--train.total-images", "960", *SMALL, *EVERY),
    ]


def outcomes(folder: Path, name: str) -> dict[str, tuple[object, ...]]:
    """Of every trial by its id: parameters, how it ended, and each evaluation's scores."""
    trials = TrialStore(Storage(f"{folder}/runs/search/{name}")).trials
    return {
        name: (trial.params, trial.status, [(r.images, r.scores) for r in trial.rungs])
        for name, trial in trials.items()
    }


def train(
    name: str, workers: int, images: int, root: str, storage: str, *more: str
) -> list[str]:
    return [
        *(sys.executable, "-m", "cbdm_scale.train", "--name", name),
        *("--data.root", root, "--cluster.storage", storage),
        *("--cluster.workers", str(workers), "--train.total-images", str(images)),
        *(*SMALL, "--eval.extractor", "none", *more),
    ]


def trains(host: int) -> bool:
    """Whether a training worker runs on the host."""
    for process in processes(host):
        with contextlib.suppress(OSError):
            if b"RayTrainWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                return True
    return False
