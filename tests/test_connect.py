"""The cluster of one machine among others on it."""

import socket
import sys
from pathlib import Path

import pytest
from ray_tools import run

from cbdm_scale.cluster.connect import wait_for_port

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
TRY = """
import os
os.environ |= {"RAY_ADDRESS": "local", "RAY_TMPDIR": "/proc/nope"}
from cbdm_scale.cluster.connect import join
try:
    join()
except ValueError as error:
    print("said", error)
"""


def test_its_processes_know_which_cluster_is_theirs(work: Path) -> None:
    """Ray Train's helpers look for it. Beside another cluster they would find two and give up,
    and the processors of a trial that was stopped would stay reserved for ever.
    """
    line = run([sys.executable, "-c", ASK], 100).splitlines()[-1]
    _, address, _, here = line.split()
    assert address == here


def test_an_address_where_nobody_listens_is_said_at_once_and_by_name():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        wait_for_port(f"127.0.0.1:{port}", 0)
    with pytest.raises(ConnectionError):
        wait_for_port(f"127.0.0.1:{port}", 0)
    wait_for_port("auto", 0)
    wait_for_port("ray://127.0.0.1:1", 0)


def test_what_keeps_ray_from_starting_is_a_line_for_the_user(work: Path) -> None:
    """As in every command: an error that says where to look, and no traceback."""
    told = run([sys.executable, "-c", TRY], 100)
    assert "said Ray did not start on this machine" in told.splitlines()[-1]
    assert "/proc/nope/ray/session_latest/logs" in told
