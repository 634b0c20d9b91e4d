"""What all tests share: one thread, one environment, a cache, the digits as shards."""

import fcntl
import os
import signal
import sys
from importlib import import_module

import pytest
import torch
from hypothesis import settings

from cbdm_scale.storage import lease
from data_prep.options import Options
from data_prep.prepare import prepare

# Ray reads its environment when it is loaded, and keeps to it while the process lives: so all
# of it is set here, before any test loads Ray, and no test depends on those before it.
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-7b1d",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password-c02e",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token-93aa",
    "GITHUB_TOKEN": "planted-token-of-somebody-4f5c",
    "RAY_AUTH_TOKEN": "planted-ray-token-e8d6",
}
"""In the environment of all tests, clusters, workers and commands: found nowhere else again."""
os.environ |= SECRETS | {
    "RAY_AUTH_MODE": "token",
    "RAY_ADDRESS": "local",  # until the shared cluster runs
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_worker_niceness": "0",  # Ray's 15 gives them what the tests beside them leave
}
TRACKERS = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
for name in TRACKERS:
    os.environ.pop(name, None)
if not torch.cuda.is_available():
    assert "triton" not in sys.modules, "it was loaded for a GPU: import that below"
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is loaded: kernels run on the CPU
# What is ignored, as under nohup or in a script's background, stays so in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
# A dry run measures for a second: no test asks how exactly.
estimate = import_module("cbdm_scale.runs.estimate")  # which loads triton
estimate.LONG_S, estimate.REPEATS = 0.001, 1
lease.SETTLE_S = 0.01  # no two commands of a test begin within it
settings.register_profile("quiet", deadline=None)
settings.load_profile("quiet")


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBDM_SCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def as_if_alone():
    """torch seeds itself at random in every process: no test may pass by luck. And
    mlflow.set_tracking_uri writes into the environment, where no other test may find it.
    One fixture: five thousand tests pay for each."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed looks for GPUs each time
    yield
    for name in TRACKERS:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A folder by its name, filled by ``make(folder)`` once for all processes of these tests,
    of which one makes it and the others wait. Read only."""
    home = tmp_path_factory.getbasetemp()
    home = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home

    def folder(name, make):
        with open(home / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / f"{name}.made").exists():
                make(home / name)
                (home / f"{name}.made").touch()
        return home / name

    return folder


@pytest.fixture(scope="session")
def digits_root(once):
    """A data root with the long-tailed digits, without the feature classifier. Read only."""

    def make(root):
        options = Options(out=str(root), classifier=False, workers=0)
        prepare("digits-lt", options, log=lambda line: None)

    return str(once("digits", make))


def pytest_addoption(parser):
    """For ``make test``, which runs both kinds side by side, each in processes of its own."""
    told = "run only the tests that share a Ray cluster, or only the others"
    parser.addoption("--ray", choices=("only", "without"), help=told)


def pytest_ignore_collect(collection_path, config):
    """Where Ray's tests run alone, files without any are not even imported."""
    if config.getoption("--ray") == "only" and collection_path.suffix == ".py":
        return "mark.ray" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(config, items):
    kind = config.getoption("--ray")
    if kind:
        other = {i for i in items if (i.get_closest_marker("ray") is None) == (kind == "only")}
        config.hook.pytest_deselected(items=list(other))
        items[:] = [item for item in items if item not in other]


pytest_plugins = [
    *("ray_tools", "sampling_tools", "evaluate_tools", "grey_tools", "partitioned_tools"),
    *("balance_tools", "report_tools"),
]
