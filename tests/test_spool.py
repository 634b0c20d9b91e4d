"""The spool on a local folder and on a store that cannot append."""

import json
import math
import uuid
from pathlib import Path
from typing import Any

import pytest

from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.spool import Spool


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    remote = f"memory://{uuid.uuid4().hex}/tracking"
    return Storage(str(tmp_path / "tracking") if request.param == "local" else remote)


def drain(spool: Spool) -> list[dict[str, Any]]:
    records = []
    while found := spool.next_unsent():
        records += found
        spool.mark_sent(found)
    return records


def test_records_come_out_once_and_in_order(folder: Storage) -> None:
    spool = Spool(folder)
    for step in range(3):
        spool.add_scalars(step, {"loss": 0.5 * step})
    spool.add_tags({"state": "x"})
    assert spool.unsent == 4
    records = drain(spool)
    assert [r.get("scalars") for r in records] == [
        {"loss": 0.0},
        {"loss": 0.5},
        {"loss": 1.0},
        None,
    ]
    assert [r["seq"] for r in records] == [1, 2, 3, 4]
    assert spool.unsent == 0 and drain(spool) == []


def test_the_unsent_tail_is_there_in_the_next_process(folder: Storage) -> None:
    spool = Spool(folder)
    spool.add_scalars(1, {"loss": 1.0})
    drain(spool)
    spool.add_scalars(2, {"loss": 2.0})
    spool.add_image(2, "samples", b"png")
    spool.sync()  # and nothing more: the process is gone
    after = Spool(folder)
    assert after.unsent == 2
    numbers, image = after.next_unsent()
    assert numbers["scalars"] == {"loss": 2.0}
    assert folder.read_bytes(image["file"]) == b"png"


def test_what_was_logged_up_to_the_mark_is_dropped(folder: Storage) -> None:
    spool = Spool(folder)
    for step in 1, 2, 3:
        spool.add_scalars(step, {"loss": float(step)})
    spool.add_image(2, "samples", b"1")
    spool.add_model(2, "a", ["newest"])
    drain(spool)
    spool.close()
    after = Spool(folder)
    for step in 2, 3, 4:  # redone from the checkpoint at 1
        after.add_scalars(step, {"loss": float(step), "late": 1.0})
    after.add_image(2, "samples", b"1")
    after.add_model(2, "a", ["newest", "best"])
    records = drain(after)
    names = [set(r["scalars"]) for r in records if "scalars" in r]
    assert names == [{"late"}, {"late"}, {"loss", "late"}]
    assert [r["aliases"] for r in records if "model" in r] == [["best"]]
    assert not any("image" in r for r in records)


def tear(folder: Storage, part: bytes) -> None:
    """What a process leaves that is killed while it writes a line."""
    with folder.open_append("000000000001.jsonl") as file:
        file.write(part)


def test_a_torn_line_is_cut_and_what_follows_is_whole(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path))
    spool = Spool(folder)
    spool.add_scalars(1, {"loss": 1.0})
    spool.close()
    tear(folder, b'{"seq":2,"time":1,"step":2,"sca')
    after = Spool(folder)
    after.add_scalars(2, {"loss": 2.0})
    assert [r["scalars"]["loss"] for r in drain(after)] == [1.0, 2.0]


def test_a_segment_that_is_one_torn_line_is_no_obstacle(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path))
    tear(folder, b'{"seq":1,"ti')
    spool = Spool(folder)
    spool.add_scalars(1, {"loss": 1.0})
    assert [r["scalars"]["loss"] for r in drain(spool)] == [1.0]


def test_a_spool_that_is_sent_does_not_grow(
    folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbdm_scale.tracking.spool.SEGMENT_BYTES", 200)
    spool = Spool(folder)
    for step in range(40):
        spool.add_scalars(step, {"loss": 1.0})
        spool.add_image(step, "samples", b"png")
    assert len(drain(spool)) == 80
    spool.close()
    Spool(folder)
    assert folder.list() == ["sent.json"]


def test_a_store_that_fails_once_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to the store")

    spool = Spool(Storage(f"memory://{uuid.uuid4().hex}/tracking"))
    spool.add_scalars(1, {"loss": 1.0})
    with monkeypatch.context() as away:
        away.setattr(MemoryFileSystem, "pipe_file", fail)
        with pytest.raises(OSError, match="no route"):
            spool.sync()
    spool.add_scalars(2, {"loss": 2.0})
    assert [r["scalars"]["loss"] for r in drain(spool)] == [1.0, 2.0]


def test_the_spool_is_strict_json(tmp_path: Path) -> None:
    spool = Spool(Storage(str(tmp_path)))
    spool.add_scalars(1, {"a": math.nan, "b": -math.inf})
    line = (tmp_path / "000000000001.jsonl").read_text()
    assert json.loads(line)["scalars"] == {"a": "nan", "b": "-inf"}
