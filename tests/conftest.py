"""What all tests share: one thread, one environment, a cache, the digits as shards."""

import os
import signal
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

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
}
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
    os.environ.pop(name, None)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is loaded: kernels run on the CPU
# What is ignored, as under nohup or in a script's background, stays so in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
settings.register_profile("quiet", deadline=None)
settings.load_profile("quiet")


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBDM_SCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seed_of_one_test():
    """torch seeds itself at random in every process: no test may pass by luck."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def tracker_of_one_test(monkeypatch):
    """mlflow.set_tracking_uri writes into the environment: no other test may find it there."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")  # remembers what was there, or that nothing was
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory):
    """A data root with the long-tailed digits, without the feature classifier. Read only."""
    root = tmp_path_factory.mktemp("digits")
    options = Options(out=str(root), classifier=False, workers=0)
    prepare("digits-lt", options, log=lambda line: None)
    return str(root)


class _FilesAndRay(LoadScopeScheduling):
    """What pytest-xdist hands out: a file, or all files that start Ray and share a cluster.

    Those take longest, so they come first. (xdist_group would say the same, but pytest-xdist
    3.8 does not hear it under pytest 9.2, whose items have ids of another kind.)
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "ray" if _starts_ray(file) else file


@cache
def _starts_ray(file):
    return "mark.ray" in Path(__file__).with_name(Path(file).name).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _FilesAndRay(config, log)


def pytest_collection_modifyitems(items):
    """Ray's files first, in every process alike; otherwise as the files come."""
    items.sort(key=lambda item: not _starts_ray(item.path.name))


pytest_plugins = [
    *("ray_tools", "sampling_tools", "evaluate_tools", "grey_tools", "parted_tools"),
    "balance_tools",
]
