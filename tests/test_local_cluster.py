"""The cluster of one machine among others on it."""

import sys
from pathlib import Path

import pytest
from ray_tools import run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]
ASK = """
import os
import ray
from cbdm_scale.cluster.connect import join

@ray.remote(num_cpus=0)
def told():
    return os.environ.get("RAY_ADDRESS")

join()
print("told", ray.get(told.remote()), "is", ray.get_runtime_context().gcs_address)
"""


def test_its_processes_know_which_cluster_is_theirs(work: Path) -> None:
    """Ray Train's helpers look for it. Beside another cluster they would find two and give up,
    and the processors of a trial that was stopped would stay reserved for ever.
    """
    line = run([sys.executable, "-c", ASK], 100).splitlines()[-1]
    _, address, _, here = line.split()
    assert address == here
