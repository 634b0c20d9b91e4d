"""Checkpoints of a run: written beside training, of the step that they say, told when whole."""

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from cbdm_scale.runs import checkpoint_manager as checkpoints_module
from cbdm_scale.runs.checkpoint_manager import CheckpointManager, Writer
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.checkpoint import (
    Progress,
    TrainState,
    load_newest,
    read_checkpoint,
    write_checkpoint,
)
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA


class Book(Tracker):
    def __init__(self, events: list[str]):
        self.events = events

    def flush(self) -> None:
        self.events.append("numbers")


def make_state() -> TrainState:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    state = TrainState(
        net,
        EMA(net, 10.0, 0.0),
        torch.optim.Adam(net.parameters()),
        Progress(substitutions=[0]),
    )
    step(state)
    return state


def step(state: TrainState) -> None:
    """As the train loop does, in place."""
    state.net(torch.ones(1, 3)).square().sum().backward()
    state.optimizer.step()
    state.progress.num_seen += 48
    state.progress.substitutions[0] += 1
    state.ema.running.take(state.net, 1 - state.ema.decay(state.progress.num_seen, 48))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing begins when this is set."""
    go = threading.Event()

    def write(*words):
        assert go.wait(30)
        return write_checkpoint(*words)

    monkeypatch.setattr(checkpoints_module, "write_checkpoint", write)
    return go


def make_manager(folder: Storage, keep: int = 3) -> tuple[CheckpointManager, list[str]]:
    events: list[str] = []
    checkpoints = CheckpointManager(
        folder,
        World(),
        Book(events),
        lambda path, metrics: events.append(f"told {metrics['images']:.0f}"),
        {"seed": 0},
        keep,
        lambda: (),
    )
    return checkpoints, events


def test_a_checkpoint_holds_the_step_it_was_asked_at_though_training_goes_on(
    tmp_path: Path, slow: threading.Event
) -> None:
    folder, state = Storage(str(tmp_path)), make_state()
    then = {k: v.clone() for k, v in state.net.state_dict().items()}
    averaged = {k: v.clone() for k, v in state.ema.net.state_dict().items()}
    moments = [v["exp_avg"].clone() for v in state.optimizer.state.values()]
    checkpoints, events = make_manager(folder)
    checkpoints.save(state)
    step(state)
    assert RunDir(folder).checkpoints() == [] and events == ["numbers"], (
        "not told before it is whole"
    )
    slow.set()
    checkpoints.wait()
    assert events == ["numbers", "told 48"]

    again = make_state()
    assert load_newest(folder, again) == ("checkpoints/000000000048", [])
    assert again.progress == Progress(num_seen=48, substitutions=[1])
    for found, expected in ((again.net, then), (again.ema.net, averaged)):
        assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())
    kept = [v["exp_avg"] for v in again.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, moments, strict=True))


def test_the_next_one_waits_and_old_ones_are_dropped_when_it_is_whole(tmp_path: Path) -> None:
    folder, state = Storage(str(tmp_path)), make_state()
    checkpoints, events = make_manager(folder, keep=1)
    for _ in range(3):
        checkpoints.save(state)
        step(state)
    assert events[-2:] == ["told 96", "numbers"]
    checkpoints.wait()
    assert RunDir(folder).checkpoints() == ["checkpoints/000000000144"]
    checkpoints.wait()
    assert events[-1] == "told 144" and events.count("told 144") == 1, "once"


def test_a_disk_that_is_full_is_said_at_the_next_step_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = Storage(str(tmp_path)), make_state()
    checkpoints, events = make_manager(folder)

    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "write_json", full)
    checkpoints.save(state)
    checkpoints.close()
    with pytest.raises(OSError, match="No space left"):
        checkpoints.check()
    assert "told 48" not in events and folder.child("checkpoints").list() == []


def test_on_the_way_out_the_one_under_way_becomes_whole(
    tmp_path: Path, slow: threading.Event
) -> None:
    folder = Storage(str(tmp_path))
    checkpoints, _ = make_manager(folder)
    checkpoints.save(make_state())
    slow.set()
    checkpoints.close()
    read_checkpoint(folder, "checkpoints/000000000048")


def test_what_the_run_goes_on_from_is_not_written_again(tmp_path: Path) -> None:
    folder, state = Storage(str(tmp_path)), make_state()
    checkpoints, events = make_manager(folder)
    checkpoints.resume_from(48)
    checkpoints.save(state)
    checkpoints.wait()
    assert not events and not folder.exists("checkpoints")


def fail() -> None:
    raise OSError("disk full")


def test_start_waits_for_the_job_before_and_not_for_its_own() -> None:
    writer, go, done = Writer(), threading.Event(), []
    writer.start(lambda: (go.wait(30), done.append(1)))
    assert not done, "it would have waited for ever"
    writer.check()
    threading.Timer(0.05, go.set).start()
    writer.start(lambda: done.append(2))
    assert done[0] == 1
    writer.wait()
    assert done == [1, 2] and writer.seconds >= 0


@pytest.mark.parametrize("way", ["wait", "start", "check"])
def test_what_a_job_raises_is_raised_once_at_the_next_call(way: str) -> None:
    writer = Writer()
    writer.start(fail)
    thread = writer._thread
    assert thread is not None
    thread.join(30)
    with pytest.raises(OSError, match="disk full"):
        getattr(writer, way)(*[lambda: None] * (way == "start"))
    writer.wait()


def test_on_the_way_out_a_job_gets_its_time_and_no_more() -> None:
    writer, go, done = Writer(), threading.Event(), []
    writer.start(lambda: (go.wait(30), done.append(1)))
    writer.close(0.01)
    assert not done
    go.set()
    writer.close(30)
    assert done == [1]
