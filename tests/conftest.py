"""What all tests share: one thread, one environment, a cache, the digits as shards."""

import os

import pytest
import torch
from hypothesis import settings

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
    prepare("digits-lt", options, say=lambda line: None)
    return str(root)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With pytest-xdist's loadgroup a file is a group, and so are all tests that start Ray.

    Those share a cluster and take longest, so they come first, the others as the files come.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


pytest_plugins = ["ray_tools", "sampling_tools", "evaluate_tools", "grey_tools", "parted_tools"]
