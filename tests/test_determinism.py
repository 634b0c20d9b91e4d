"""The two promises of elastic determinism, kept by real processes that reduce over gloo.

The same number of workers: bit for bit, however often a run is killed. Another number of
workers, without dropout: the same losses.
"""

import signal

import pytest
from gloo_tools import Job, launch, newest_checkpoint, read_losses, tiny_config

BATCH = 24  # what 1, 2, 3 and 4 divide
STEPS, HALF = 50, 25
LONG, BREAK = 24, 11


@pytest.fixture(scope="module")
def done(digits_root, tmp_path_factory):
    """All runs of this file by name; each rank is one process for all of them."""
    folder = tmp_path_factory.mktemp("runs")

    def job(name, ranks, *, steps, dropout=0.1, **options):
        config = tiny_config(
            digits_root, str(folder), name, steps=steps, dropout=dropout, **options
        )
        return Job(config, ranks)

    jobs = {f"on {r}": job(f"on-{r}", r, steps=STEPS, dropout=0.0) for r in (1, 2, 3, 4)}
    jobs |= {
        "first half on 2": job("2-then-3", 2, steps=HALF, dropout=0.0),
        "2, then 3": job("2-then-3", 3, steps=STEPS, dropout=0.0),
        "first half on 4": job("4-then-1", 4, steps=HALF, dropout=0.0),
        "4, then 1": job("4-then-1", 1, steps=STEPS, dropout=0.0),
    }
    for r in (2, 3):
        jobs |= {
            f"unbroken on {r}": job(f"unbroken-{r}", r, steps=LONG),
            f"begun on {r}": job(f"broken-{r}", r, steps=BREAK),
            f"broken on {r}": job(f"broken-{r}", r, steps=LONG),
        }
    codes = launch(list(jobs.values()), folder / "meetings")
    assert codes == [0, 0, 0, 0]
    return jobs


@pytest.mark.parametrize("name", ["on 2", "on 3", "on 4", "2, then 3", "4, then 1"])
def test_losses_are_the_same_on_every_number_of_workers(done, name):
    expected, found = read_losses(done["on 1"]), read_losses(done[name])
    assert list(found) == [BATCH * (k + 1) for k in range(STEPS)]
    assert found == pytest.approx(expected, rel=1e-5, abs=0)


def assert_same_files(a, b):
    assert newest_checkpoint(a).name == newest_checkpoint(b).name
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        one, other = ((newest_checkpoint(j) / file).read_bytes() for j in (a, b))
        assert one == other, f"{file} differs"


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_resumed_run_ends_with_the_bits_of_the_unbroken_one(done, ranks):
    assert_same_files(done[f"unbroken on {ranks}"], done[f"broken on {ranks}"])
    unbroken, broken = (read_losses(done[f"{how} on {ranks}"]) for how in ("unbroken", "broken"))
    assert broken == unbroken


def test_dropout_was_on(done):
    """Or the two tests above would say less than they seem to."""
    plain, dropped = read_losses(done["on 3"]), read_losses(done["unbroken on 3"])
    assert all(plain[images] != dropped[images] for images in list(dropped)[1:])


def test_a_run_killed_with_9_ends_with_the_bits_of_the_unbroken_one(
    done, digits_root, tmp_path
):
    config = tiny_config(
        digits_root, str(tmp_path), "killed", steps=LONG, dropout=0.1, save_steps=5
    )
    killed = Job(config, 3, kill_at=13 * BATCH)
    codes = launch([killed], tmp_path / "first")
    assert codes[0] == -signal.SIGKILL and 0 not in codes
    assert newest_checkpoint(killed).name == f"{10 * BATCH:012d}"

    assert launch([Job(config, 3)], tmp_path / "second") == [0, 0, 0]
    assert_same_files(done["unbroken on 3"], Job(config, 3))
