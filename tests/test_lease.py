"""Who works in a folder now: found out by signs of life, taken over after their end."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest
from s3_tools import ACCOUNT, client, s3_server

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import LEASE, Holder, lease, wait_until_free

DOING = "run x is being trained"
QUICK = {"beat_s": 0.05, "lapse_s": 0.5}
ELSEWHERE = Holder("node-7", 4711, 0.0, "another")


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as (host, port), pytest.MonkeyPatch.context() as patch:
        for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        client((host, port)).create_bucket(Bucket="leases")
        yield "s3://leases"


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.slow)])
def folder(request, tmp_path):
    if request.param == "disk":
        return Storage(str(tmp_path / "run"))
    return Storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def write(folder, holder):
    folder.write_json(LEASE, asdict(holder))


def test_a_second_holder_is_refused_while_the_first_lives_and_let_in_after_its_end(folder):
    with lease(folder, DOING, **QUICK):
        held = folder.read_json(LEASE)
        with (
            pytest.raises(
                ValueError, match=f"{DOING} by .*:{os.getpid()}, which has just been"
            ),
            lease(folder, DOING, **QUICK),
        ):
            pass
        assert folder.read_json(LEASE)["token"] == held["token"]
    assert not folder.exists(LEASE)
    with lease(folder, DOING, **QUICK):
        assert folder.read_json(LEASE)["token"] != held["token"]


def test_a_holder_elsewhere_that_gives_no_sign_lapses_whatever_the_clocks_say(folder):
    write(folder, ELSEWHERE)
    began = time.monotonic()
    with lease(folder, DOING, **QUICK):
        assert time.monotonic() - began >= QUICK["lapse_s"]
        assert folder.read_json(LEASE)["host"] == socket.gethostname()


def test_a_holder_that_was_killed_on_this_machine_is_seen_at_once(tmp_path):
    code = (
        "import sys, time\n"
        "from cbdm_scale.storage.folder import Storage\n"
        "from cbdm_scale.storage.lease import lease\n"
        f"with lease(Storage(sys.argv[1]), {DOING!r}):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    folder = Storage(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code, folder.url], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
        other.wait()
        assert Holder(**json.loads(folder.read_text(LEASE))).pid == other.pid
        wait_until_free(folder, DOING, lapse_s=float("inf"))  # returns: it need not lapse


def test_a_number_that_was_given_again_is_not_the_holder():
    mine = Holder(socket.gethostname(), os.getpid(), 0.0, "long ago")
    assert mine.has_died and not ELSEWHERE.has_died


def test_who_was_taken_over_from_is_interrupted_and_leaves_the_folder_alone(tmp_path):
    folder = Storage(str(tmp_path))

    def take() -> None:
        for _ in range(5):  # as the other's beat does: one may fall between a look and a write
            write(folder, ELSEWHERE)
            time.sleep(0.04)

    took = threading.Timer(0.2, take)
    with (
        pytest.raises(ValueError, match=f"{DOING} by node-7:4711, which has taken it over"),
        lease(folder, DOING, **QUICK),
    ):
        took.start()
        time.sleep(30)  # is interrupted
    took.join()
    assert folder.read_json(LEASE)["token"] == ELSEWHERE.token


def test_of_two_that_begin_at_once_one_gets_it(tmp_path):
    folder, got, refused = Storage(str(tmp_path)), [], []
    together = threading.Barrier(2)

    def begin():
        together.wait()
        try:
            with lease(folder, DOING, **QUICK):
                got.append(1)
                time.sleep(0.6)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1 and DOING in refused[0]


def test_what_was_done_counts_also_where_the_lease_cannot_be_given_back(tmp_path):
    folder = Storage(str(tmp_path))
    with lease(folder, DOING, **QUICK):
        folder.remove(LEASE)
        folder.local_path(LEASE).mkdir()  # reading it fails from now on


def test_a_damaged_lease_is_nobodys(tmp_path):
    folder = Storage(str(tmp_path))
    folder.write_bytes(LEASE, b"{")
    wait_until_free(folder, DOING)
