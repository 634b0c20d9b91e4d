"""What all tests share: one thread, a cache of their own, the digits as shards."""

import pytest
import torch
from hypothesis import settings

from data_prep.options import Options
from data_prep.prepare import prepare

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


pytest_plugins = ["ray_tools", "sampling_tools", "evaluate_tools", "grey_tools", "parted_tools"]
