"""The cluster of one machine among others on it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from ray_tools import run, start, wait_for

connect = import_module("cbdm_scale.cluster.connect")  # the package has a function of the name
pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]
ASK = """
import os, sys
import ray
from cbdm_scale.cluster.connect import join

module = sys.modules["cbdm_scale.cluster.connect"]
start = module.init_on_loopback
module.init_on_loopback = lambda **more: start(**more | {"include_dashboard": False})

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

JOIN = """
from cbdm_scale.cluster.connect import join
try:
    join()
except ValueError as error:
    print("said", error)
"""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and nothing is said, as by a stopped process."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's folder on this machine, for one test; nothing names a cluster."""
    monkeypatch.delenv("RAY_ADDRESS")
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)  # short: Ray puts sockets there
        (Path(folder) / "ray").mkdir()
        yield Path(folder) / "ray"


def test_beside_the_cluster_of_others_and_a_dead_one_a_command_starts_its_own(
    work: Path, ray_folder: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes know which is theirs: Ray Train's helpers look for it, would find two and
    give up, and the processors of a trial that was stopped would stay reserved for ever.
    """
    (ray_folder / "ray_current_cluster").write_text(silent)
    line = run([sys.executable, "-c", ASK], 100).splitlines()[-1]
    _, address, _, here = line.split()
    assert address == here
    assert address != (work / "address").read_text(), "nobody named that cluster"


def test_a_cluster_is_joined_where_it_was_named_or_started_here_by_the_user(
    work: Path, ray_folder: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, file = (work / "address").read_text(), ray_folder / "ray_current_cluster"
    assert connect.find_cluster() == ""
    for there, found in ((shared, shared), (silent, ""), ("127.0.0.1:9", "")):
        file.write_text(there)
        assert connect.find_cluster() == found
    file.write_text(shared)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert connect.find_cluster() == ""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert connect.find_cluster() == shared
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="RAY_ADDRESS .auto.:"):
        patch.setattr("os.getuid", lambda: -1)  # it is somebody else's
        connect.find_cluster()
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")
    assert connect.find_cluster() == "host:6379"


def test_who_does_not_speak_as_ray_does_is_no_cluster(work: Path, silent: str) -> None:
    assert connect.answers((work / "address").read_text(), 5)
    assert not connect.answers(silent, 0.2)
    assert not connect.answers("127.0.0.1:9", 0)
    assert connect.answers("ray://127.0.0.1:1", 0), "Ray's own client says more"


def test_an_address_where_no_ray_answers_is_said_at_once_and_by_name(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", silent)
    monkeypatch.setattr(connect, "ANSWER_S", 0.2)
    with pytest.raises(ValueError, match=rf"RAY_ADDRESS \({silent}\) does not answer"):
        connect.join()


def test_a_cluster_that_wants_another_token_is_said_at_once_by_its_name(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray tries for 20 s, and then only says that it cannot connect."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    told = run([sys.executable, "-c", JOIN], 60).splitlines()[-1]
    address = (work / "address").read_text()
    assert told.startswith(f"said the Ray cluster at {address} wants another token than that ")
    assert "RAY_AUTH_TOKEN. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or" in told
    assert told.endswith("RAY_ADDRESS=local.") and "constraints" not in told
    for name, value, words in (
        ("RAY_AUTH_TOKEN_PATH", __file__, f"another token than that of {__file__}"),
        ("RAY_AUTH_TOKEN_PATH", "/nowhere", "a token, and there is none"),
        ("RAY_AUTH_MODE", "disabled", "a token, and RAY_AUTH_MODE is disabled"),
        ("RAY_AUTH_MODE", "", "a token, and RAY_AUTH_MODE is not set"),
    ):
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        monkeypatch.setenv(name, value)
        assert connect._wanted() == words


def test_who_cannot_join_gets_the_cure_of_the_cause_or_none(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for words, cure in (
        ("Version mismatch: The cluster was started with", "Install the same constraints.txt"),
        ("the moon is full", "You can start one of this machine alone"),
    ):

        def fail(words: str = words, **_: object) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(ray, "init", fail)
        with pytest.raises(ValueError, match=f"cannot be joined: {words}. {cure}"):
            connect.join()


@pytest.mark.slow
def test_a_cluster_of_ray_start_is_joined_while_it_runs(ray_folder: Path) -> None:
    words = "start --head --block --port 0 --num-cpus 1 --include-dashboard false"
    head = start([str(Path(sys.executable).with_name("ray")), *words.split()], ray_folder / "l")
    try:
        wait_for(lambda: bool(connect.find_cluster()), 60)
        found = connect.find_cluster()
        assert run([sys.executable, "-c", ASK], 100).split()[-1] == found
    finally:
        head.terminate()
        head.wait()
    assert connect.find_cluster() == ""


def test_what_keeps_ray_from_starting_is_a_line_for_the_user(work: Path) -> None:
    """As in every command: an error that says where to look, and no traceback."""
    told = run([sys.executable, "-c", TRY], 100)
    assert "said Ray did not start on this machine" in told.splitlines()[-1]
    assert "/proc/nope/ray/session_latest/logs" in told


def test_looking_for_a_cluster_sets_what_ray_reads_when_it_is_imported(tmp_path):
    """Ray took no token afterwards, and the cluster that a command started refused it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    code = (
        "import os, sys; from importlib import import_module; before = []; "
        "connect = import_module('cbdm_scale.cluster.connect'); "
        "connect.ray_start_address = lambda: before.append(os.environ['RAY_AUTH_MODE']) or ''; "
        "assert connect.find_cluster() == '' and before == ['token']; "
        "assert 'ray' not in sys.modules"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
