"""The two promises of elastic determinism, kept by real processes that reduce over gloo.

The same number of workers: bit for bit, however often a run is killed. Another number of
workers, without dropout: the same losses.
"""

import signal

import pytest
from gloo_tools import Job, checkpoint, launch, read_losses, tiny_config

BATCH = 12  # what 1, 2, 3 and 4 divide
STEPS, HALF = 12, 6  # of the runs without dropout
LONG, BREAK = 10, 4  # of those with


@pytest.fixture(scope="module")
def done(digits_root, tmp_path_factory):
    """All runs of this file by name; each rank is one process for all of them."""
    folder = tmp_path_factory.mktemp("runs")

    def job(ranks, name, begin_with=None, **options):
        config = tiny_config(digits_root, str(folder), name, batch_size=BATCH, **options)
        return Job(config, ranks, begin_with=begin_with)

    plain = {"steps": STEPS, "dropout": 0.0}
    jobs = {f"on {r}": job(r, f"on-{r}", save_steps=HALF, **plain) for r in (1, 2, 3, 4)}
    for a, b in ((2, 3), (4, 1)):
        middle = checkpoint(jobs[f"on {a}"], HALF)
        jobs[f"{a}, then {b}"] = job(b, f"{a}-then-{b}", middle, **plain)
    jobs["on 2 in parts"] = job(2, "parts", steps=10, dropout=0.0, micro_batch=4)
    dropped = {"steps": LONG, "dropout": 0.1}
    for r in (2, 3):
        whole = job(r, f"unbroken-{r}", save_steps=BREAK, **dropped)
        middle = checkpoint(whole, BREAK)
        jobs |= {
            f"unbroken on {r}": whole,
            f"broken on {r}": job(r, f"b-{r}", middle, **dropped),
        }

    assert launch(list(jobs.values()), folder / "meetings") == [0, 0, 0, 0]
    return jobs


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_losses_are_the_same_on_every_number_of_workers(done, ranks):
    expected, found = read_losses(done["on 1"]), read_losses(done[f"on {ranks}"])
    assert list(found) == [BATCH * (k + 1) for k in range(STEPS)]
    assert found == pytest.approx(expected, rel=1e-5, abs=0)


@pytest.mark.parametrize("name", ["2, then 3", "4, then 1"])
def test_losses_are_the_same_after_a_restart_on_another_number_of_workers(done, name):
    expected, found = read_losses(done["on 1"]), read_losses(done[name])
    assert list(found) == [BATCH * (k + 1) for k in range(HALF, STEPS)]
    assert found == pytest.approx({k: expected[k] for k in found}, rel=1e-5, abs=0)


def test_losses_are_the_same_in_micro_batches(done):
    """Gradients gather on each rank, and are averaged over the ranks with the last part."""
    expected, found = read_losses(done["on 1"]), read_losses(done["on 2 in parts"])
    assert len(found) == 10
    assert found == pytest.approx({k: expected[k] for k in found}, rel=1e-5, abs=0)


def assert_same_end(a, b):
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        one, other = ((checkpoint(job, LONG) / file).read_bytes() for job in (a, b))
        assert one == other, f"{file} differs"


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_resumed_run_ends_with_the_bits_of_the_unbroken_one(done, ranks):
    unbroken, broken = done[f"unbroken on {ranks}"], done[f"broken on {ranks}"]
    assert_same_end(unbroken, broken)
    resumed = read_losses(broken)
    assert len(resumed) == LONG - BREAK
    assert resumed == {images: read_losses(unbroken)[images] for images in resumed}


def test_dropout_was_on(done):
    """Or the two tests around this one would say less than they seem to."""
    plain, dropped = read_losses(done["on 3"]), read_losses(done["unbroken on 3"])
    assert plain[LONG * BATCH] != dropped[LONG * BATCH]


def test_a_run_killed_with_9_ends_with_the_bits_of_the_unbroken_one(
    done, digits_root, tmp_path
):
    config = tiny_config(
        digits_root,
        str(tmp_path),
        "killed",
        steps=LONG,
        dropout=0.1,
        batch_size=BATCH,
        save_steps=5,
    )
    killed = Job(config, 3, kill_at=8 * BATCH)
    codes = launch([killed], tmp_path / "first")
    assert codes[0] == -signal.SIGKILL and 0 not in codes
    assert checkpoint(killed, 5).exists() and not checkpoint(killed, 10).exists()

    assert launch([Job(config, 3)], tmp_path / "second") == [0, 0, 0]
    assert_same_end(done["unbroken on 3"], killed)
