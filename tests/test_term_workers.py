"""Terms that set images beside each other see those of their own worker, on real ranks."""

from dataclasses import replace

import pytest
from gloo_tools import Job, launch, read_losses, tiny_config

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.losses.options import CONTRASTS, LossConfig
from cbdm_scale.runs.launch import open_run_dir

TERMS = {"delta_fm": 0.2, "t2h": True, "ccua_contrast": 1.0, "coral": 0.5, "dispersive": 0.25}
"""Each at a weight that shows."""
STEPS = 3


@pytest.fixture(scope="module")
def losses(tmp_path_factory, digits_root):
    """Name -> loss of every step, of runs that cut their batches in several ways."""
    folder = tmp_path_factory.mktemp("workers")

    def job(name, ranks, batch_size, micro_batch=0, **terms):
        config = tiny_config(
            *(digits_root, str(folder), name),
            steps=STEPS,
            dropout=0.0,
            batch_size=batch_size,
            micro_batch=micro_batch,
        )
        config = replace(config, loss=LossConfig(name="ddpm", p_uncond=0.3, **terms))
        open_run_dir(config, read_manifest(digits_root, config.dataset))
        return Job(config, ranks)

    jobs = {
        "plain, one each": job("plain", 2, 2),
        "one each": job("alone", 2, 2, **TERMS),
        "two workers": job("two", 2, 8, **TERMS),
        "two halves": job("halves", 1, 8, 4, **TERMS),
        "whole": job("whole", 1, 8, **TERMS),
    }
    assert launch(list(jobs.values()), folder / "launch") == [0, 0]
    return {name: list(read_losses(one).values()) for name, one in jobs.items()}


def test_every_such_term_is_among_them():
    assert set(TERMS) == set(CONTRASTS)


def test_with_one_image_a_worker_they_are_0_and_leave_the_denoising_loss(losses):
    assert len(losses["one each"]) == STEPS
    assert losses["one each"] == pytest.approx(losses["plain, one each"], rel=1e-5)


def test_two_workers_see_what_two_micro_batches_see_and_not_the_whole_batch(losses):
    assert losses["two workers"] == pytest.approx(losses["two halves"], rel=1e-5)
    assert losses["two workers"] != pytest.approx(losses["whole"], rel=1e-3)
