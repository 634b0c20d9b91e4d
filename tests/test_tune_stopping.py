"""A search that is asked to stop: its trials save first, and go on as if nothing had been."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray_tools import wait_for
from tracking_tools import make_database

from cbdm_scale.cli.signals import AGAIN_S, Interrupted
from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import preset
from cbdm_scale.config.run_options import resolve
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.runs.launch import prepare_data
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.train import parse
from data_prep.__main__ import main as prepare
from tune.search import Search
from tune.stopping import stop_on_signal
from tune.trainable import train_trial


def search_in(trials: Storage, lines: list[str]) -> Search:
    """What a request to stop knows of a search: where its trials are, and where to say so."""
    base = with_options(preset("digits_lt", "cbdm"), {"cluster.storage": trials.url})
    found: Search = SimpleNamespace(  # type: ignore[assignment]
        template=SimpleNamespace(base=base), progress=SimpleNamespace(log=lines.append)
    )
    return found


def test_a_signal_waits_for_what_runs_and_says_what_was_saved(tmp_path: Path) -> None:
    trials, lines = Storage(str(tmp_path)), list[str]()
    with pytest.raises(Interrupted) as ended, stop_on_signal(search_in(trials, lines)) as asked:
        asked.look(["t000", "t001"])
        assert not trials.exists(RunDir.STOP) and lines == []
        signal.raise_signal(signal.SIGTERM)
        asked.look(["t000", "t001"])
        assert trials.exists(RunDir.STOP) and not asked.is_over
        asked.add_saved("t000", 4_800)
        asked.look([])
        assert asked.is_over
    assert ended.value.number == signal.SIGTERM
    assert not trials.exists(RunDir.STOP), "the next search would stop at once"
    assert lines[1:] == [
        "t000 saved a checkpoint at 4,800 images",
        "1 of 2 running trials saved a checkpoint; "
        "t001 will go on from the newest that is there",
    ]


def test_trials_that_never_end_are_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.stopping.SAVING_S", 0.2)
    with (
        pytest.raises(Interrupted),
        stop_on_signal(search_in(Storage(str(tmp_path)), [])) as asked,
    ):
        signal.raise_signal(signal.SIGINT)
        while not asked.is_over:
            asked.look(["t000"])
            time.sleep(0.05)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(Interrupted) as ended,
        stop_on_signal(search_in(Storage(str(tmp_path)), [])) as asked,
    ):
        signal.raise_signal(signal.SIGTERM)
        asked.look(["t000"])
        time.sleep(AGAIN_S + 0.1)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")
    assert ended.value.number == signal.SIGINT
    assert not (tmp_path / RunDir.STOP).exists()


@pytest.fixture
def base(tmp_path: Path) -> Config:
    """What the trials of a search of a tiny set share, in this process alone."""
    made = "synthetic --name shapes --classes 2 --counts 64 --eval-per-class 1 --resolution 8"
    prepare([*made.split(), "--no-classifier", "--out", str(tmp_path / "shards")])
    words = [
        *("--dataset", "shapes", "--data.root", str(tmp_path / "shards")),
        *("--cluster.storage", str(tmp_path / "trials"), "--cluster.workers", "0"),
        *("--preset", "small", "--model.channels", "16", "--model.dropout", "0.1"),
        *("--train.batch-size", "16", "--eval.extractor", "none", "--train.sample-every", "0"),
        *("--track.uri", make_database(tmp_path)),
    ]
    return resolve(parse(words).config)


def test_a_trial_saves_as_the_search_stops_and_goes_on_with_its_bits(
    base: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is there before the run, whose launch takes one in its folder for old."""
    trials = Storage(base.cluster.storage)
    trials.write_bytes(RunDir.STOP, b"")

    def look_and_prepare(config: Config) -> Manifest:
        """Until the request has come to the folder of the run."""
        wait_for(lambda: trials.exists(f"{config.run_name}/{RunDir.STOP}"), 60)
        return prepare_data(config)

    def train(name: str, images: int) -> int | None:
        config = with_options(base, {"name": name, "train.total_images": images})
        return train_trial(config, {}, 0, print)

    with monkeypatch.context() as late:
        late.setattr("cbdm_scale.runs.launch.prepare_data", look_and_prepare)
        saved = train("stopped", 96_000)
    assert saved is not None and trials.exists(f"stopped/{RunDir.checkpoint(saved)}")
    assert not trials.exists(f"stopped/{RunDir.STOP}")
    trials.remove(RunDir.STOP)
    end = saved + 8 * base.train.batch_size
    assert train("stopped", end) is None and train("unbroken", end) is None
    for file in (RunDir.MODEL, RunDir.EMA, RunDir.OPTIMIZER):
        ends = {
            trials.read_bytes(f"{name}/{RunDir.checkpoint(end)}/{file}")
            for name in ("stopped", "unbroken")
        }
        assert len(ends) == 1
