"""Every seed of a comparison may have a data set of its own."""

import shutil

import pytest

from data_prep.options import Options
from data_prep.prepare import prepare
from tune.comparison.options import CompareCluster, CompareData, CompareOptions
from tune.comparison.protocol import Method, Phase, Protocol
from tune.comparison.run import make_jobs, make_plan


@pytest.fixture(scope="module")
def draws(tmp_path_factory, random_classifier):
    """Two draws of the digits' tail, and one with more images. Read only."""
    root = tmp_path_factory.mktemp("draws")
    weights = random_classifier.removeprefix("classifier:")
    for seed, imbalance in ((0, 0.01), (1, 0.01), (2, 0.02)):
        out = str(root / f"draw-{seed}")
        options = Options(out=out, seed=seed, imbalance=imbalance, classifier=False, workers=0)
        prepare("digits-lt", options, log=lambda line: None)
        shutil.copy(weights, root / f"draw-{seed}" / "digits_lt")
    return root


def plan_of(root, storage, seeds):
    phase = Phase(seeds=seeds, stops=(96,), strengths=(1.0,))
    protocol = Protocol(
        dataset="digits_lt",
        control="ddpm",
        rows={"ddpm": Method(), "cbdm": Method(preset="cbdm", cost=2.0)},
        screen=Phase(seeds=(9,), stops=(96,), strengths=(1.0,)),
        confirm=phase,
        num_images=40,
    )
    options = CompareOptions(
        phase="confirm",
        name="draws",
        data=CompareData(root=str(root / "draw-{seed}")),
        cluster=CompareCluster(storage=str(storage), device="cpu"),
    )
    return make_plan(options, protocol, write=True)


def test_a_network_is_trained_and_judged_on_the_draw_of_its_seed(draws, tmp_path):
    jobs = make_jobs(plan_of(draws, tmp_path, (0, 1)), {"ddpm": 1.0, "cbdm": 2.0})
    sets = [one for job in jobs for one in job.sets]
    assert [(one.row, one.config.seed) for one in sets] == [
        *(("ddpm", 0), ("cbdm", 0)),
        *(("ddpm", 1), ("cbdm", 1)),
    ]
    for job in jobs:
        assert job.config.data.root == str(draws / f"draw-{job.config.seed}")
        assert job.sets[0].spaces[0].config.data.root == job.config.data.root
    assert sets[0].spaces == sets[1].spaces
    assert sets[0].spaces[0].fingerprint != sets[2].spaces[0].fingerprint


def test_draws_of_other_counts_are_refused(draws, tmp_path):
    with pytest.raises(ValueError, match="data.root .*draw-2 and in .*draw-0 differ in their"):
        plan_of(draws, tmp_path, (0, 2))
