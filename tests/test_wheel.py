"""The wheel has every package, what they read, and the command; without the clone beside it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from cbdm_scale.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = "cbdm_scale", "data_prep", "tune"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as building leaves files beside the sources."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", *build, str(clone)], check=True, capture_output=True)
    [found] = out.glob("*.whl")
    return found


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    with zipfile.ZipFile(wheel) as archive:
        assert files - set(archive.namelist()) == set()


@pytest.mark.slow
def test_its_commands_run_in_an_environment_of_their_own(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    [site] = (tmp_path / "env").glob("lib/python*/site-packages")
    install = ["pip", "--python", str(tmp_path / "env"), "install", "--no-deps", "--quiet"]
    subprocess.run([sys.executable, "-m", *install, str(wheel)], check=True)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*words):
        command = [str(tmp_path / "env" / "bin" / "cbdm"), *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    for name in COMMANDS:
        words = [name] if name == "completion" else [name, "--help"]
        done = run(*words)
        assert done.returncode == 0, (name, done.stderr)
    where = "import cbdm_scale, data_prep, tune; print(cbdm_scale.__file__)"
    python = [str(tmp_path / "env" / "bin" / "python"), "-c", where]
    found = subprocess.run(
        python, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(tmp_path))
    assert run("prepare", "digits-lt", "--out", "shards").returncode == 0
