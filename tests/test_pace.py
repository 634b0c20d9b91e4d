"""What is left of a run counts the images that it has yet to make, and making them is shown."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from gloo_tools import tiny_config

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation import pace as module
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.pace import Pace, images_to_make
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import World


@pytest.mark.parametrize(
    ("seen", "waits", "train", "images"),
    [
        (48, True, {}, 4 * 300 + 100 + 200),  # grids, an evaluation on the way, the last one
        (48, False, {}, 4 * 300 + 200),  # beside training nobody waits for it
        (480, True, {}, 3 * 300 + 100 + 200),  # this step's own come after its report
        (960, True, {}, 300 + 200),
        (48, True, {"sample_every": 400}, 3 * 300 + 100 + 200),  # at 400, 800 and the end
        (48, True, {"sample_every": 0}, 100 + 200),
        (48, True, {"sample_every": 0, "eval_at": (96, 480, 960)}, 2 * 100 + 200),
        (48, True, {"eval_at": (96, 480, 960)}, 5 * 300 + 2 * 100 + 200),  # a grid at 96 too
        (144, True, {"eval_at": (96,)}, 4 * 300 + 100 + 200),
    ],
)
def test_grids_and_evaluations_that_are_to_come_are_counted(seen, waits, train, images):
    config = tiny_config("", "", "run", steps=20, dropout=0.0, batch_size=48)
    usual = {"sample_every": 240, "eval_every": 480}
    config = replace(
        config,
        train=replace(config.train, **(usual | train)),
        eval=EvalConfig(num_images=100, guidance=(0.0, 1.0)),
    )
    assert images_to_make(config, 40, seen, waits=waits) == images
    silent = replace(config, eval=replace(config.eval, extractor="none"))
    grids = images_to_make(silent, 40, seen, waits=waits)
    assert grids % 300 == 0 and grids < images, "no evaluation without an extractor"


def test_the_time_left_has_the_images_in_it_as_soon_as_their_pace_is_known(monkeypatch):
    ticks = iter([0.0, 50.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    pace = Pace(2, None)
    assert pace.left(100.0, 0) == "1:40 left"
    assert pace.left(100.0, 1500) == "1:40 left, then 1,500 images to make"
    with pace.showing(100, "images"):
        pace.count(50)  # as the other rank does: 2 a second together
    assert pace.left(100.0, 1500) == "14:10 left"


def test_long_work_of_rank_0_is_shown(digits_root, tmp_path, monkeypatch):
    monkeypatch.setitem(ProgressBar.__init__.__kwdefaults__, "every_s", 0.0)
    config = tiny_config(digits_root, str(tmp_path), "run", steps=1, dropout=0.0)
    manifest, said = read_manifest(digits_root, config.dataset), []
    process, world, run = build_process(config.noise), World(), Storage(str(tmp_path))
    evaluator = Evaluator(config, manifest, process, world, run, log=said.append)
    evaluator.grid(lambda x, level, y, omega=None, augment=None: x)
    assert "100/100 images of the grid" in said[-1] and "left" in said[-1]
    pace = Pace(2, said.append)
    with pace.showing(100, "images"):
        pace.count(10)
        assert "20/100 images" in said[-1], "the other rank is as fast"
        pace.count(50)
        assert "100/100 images" in said[-1], "and no bar goes beyond its end"
