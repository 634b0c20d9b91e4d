"""The scripts of clusters/: shellcheck's opinion, and how submit.sh tells a job's end."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "clusters"
SCRIPTS = sorted([*CLUSTERS.glob("*.sh"), *CLUSTERS.glob("*.sbatch")])
FAKE_RAY = """#!/bin/sh
echo "$@" >>"$LOG"
case "$1 $2" in
"job submit") exit "$SUBMIT_EXITS" ;;
"job status")
    n=$(grep -c "job status" "$LOG")
    status=$(echo "$STATUSES" | cut -d, -f"$n")
    case $status in # in Ray's words
    RUNNING | PENDING) echo "Status for job '$3': $status" ;;
    gone) echo "Job $3 does not exist"; exit 1 ;;
    *) echo "Job '$3' $status"; echo "Status message: Job 'x' succeeded, was stopped" ;;
    esac ;;
esac
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_shellcheck_finds_nothing(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: CONTRIBUTING.md says how to get it")
    found = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_scripts_can_be_run_and_stop_at_the_first_error(script):
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


def submit(tmp_path, statuses, submit_exits=0, words=("--", "python", "-m", "x")):
    ray = tmp_path / "ray"
    ray.write_text(FAKE_RAY)
    ray.chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    log = tmp_path / "log"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(log),
        "STATUSES": statuses,
        "SUBMIT_EXITS": str(submit_exits),
    }
    done = subprocess.run(
        [CLUSTERS / "submit.sh", *words], env=environment, capture_output=True, text=True
    )
    return done, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    "statuses, submit_exits, ends",
    [
        ("succeeded", 0, 0),
        ("failed", 1, 1),
        ("was stopped", 0, 3),  # of which ray job submit itself exits 0
        ("RUNNING,RUNNING,succeeded", 1, 0),  # the stream broke, the job did not
        ("PENDING,failed", 0, 1),
        ("gone", 1, 1),
    ],
)
def test_submit_exits_with_how_the_job_ended(tmp_path, statuses, submit_exits, ends):
    done, asked = submit(tmp_path, statuses, submit_exits)
    assert done.returncode == ends, done.stderr
    assert re.fullmatch(
        r"job submit --submission-id cbdm-\S+ --working-dir \. -- python -m x", asked[0]
    )


def test_submit_says_how_it_is_used(tmp_path):
    done, asked = submit(tmp_path, "succeeded", words=("python",))
    assert done.returncode == 2 and "usage:" in done.stderr and asked == []


def test_an_id_of_ones_own_is_the_jobs(tmp_path):
    _, asked = submit(tmp_path, "succeeded", words=("--id", "mine", "--", "true"))
    assert asked[0] == "job submit --submission-id mine --working-dir . -- true"
    assert asked[1] == "job status mine"


# ----------------------------------------------------------------------------
# What is uploaded with a job.


def test_a_job_takes_the_code_along_and_nothing_large_or_secret(tmp_path):
    """Ray's own rules, on a clone with data, runs, weights, a .venv and secrets in it."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    from ray._private.ray_constants import get_runtime_env_default_excludes

    clone = tmp_path / "clone"
    for part in ("cbdm_scale", "data_prep", "tune", "clusters", "docs", "benchmarks"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, clone / part, ignore=skip)
    for file in (".rayignore", ".gitignore", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, clone / file)
    unwanted = [
        *(".git/objects/x", ".venv/lib/x.py", "shards/digits_lt/train/000000.tar"),
        *("runs/r/checkpoints/1/model.safetensors", "runs/mlflow.db", "mlflow.db"),
        *("weights.pt", "samples.npz", "grid.png", ".env", "secrets.env", ".netrc"),
        *("tests/test_x.py", ".ruff_cache/x", ".hypothesis/x", "mlruns/0/meta.yaml"),
    ]
    for name in unwanted:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("x")
    package = tmp_path / "package.zip"
    packaging.create_package(
        str(clone),
        package,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
    )
    shutil.unpack_archive(package, tmp_path / "there")
    arrived = {
        str(f.relative_to(tmp_path / "there"))
        for f in (tmp_path / "there").rglob("*")
        if f.is_file()
    }
    assert not arrived & set(unwanted)
    for part in ("cbdm_scale", "data_prep"):
        code = {str(f.relative_to(ROOT)) for f in (ROOT / part).rglob("*.py")}
        assert code <= arrived
    assert "data_prep/readers/counts/imagenet_lt.json" in arrived
    assert package.stat().st_size < 3_000_000
