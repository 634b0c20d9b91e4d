"""The notebook runs from its first cell to its last, as a user would run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracking_tools import make_database

NOTEBOOK = Path(__file__).parents[1] / "docs/quickstart.ipynb"
LENGTH = "NUM_IMAGES = 72_000"
LAST = """
from PIL import Image

assert isinstance(grid, Image.Image) and grid.height > 100
assert images.shape == (100, 1, 8, 8) and images.abs().max() < 3
assert list(found.scores) == ["0.0", "1.0", "2.0"]
print("FID", found.scores["1.0"]["fid"])
"""
GRID = "class_grid(to_uint8"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def notebook(num_images: int, options: str = "") -> str:
    """The code of all cells, with that length and more options, and what is asked of it."""
    code = "\n\n".join(code_cells())
    total = '"train.total_images": NUM_IMAGES,'
    assert all(code.count(text) == 1 for text in (LENGTH, total, f"\n{GRID}"))
    code = code.replace(LENGTH, f"NUM_IMAGES = {num_images}")
    code = code.replace(total, total + options).replace(f"\n{GRID}", f"\ngrid = {GRID}")
    return code + LAST


def test_the_notebook_is_short_and_holds_no_output() -> None:
    lines = [line for cell in code_cells() for line in cell.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(("import ", "from "))]
    assert len(others) <= 25
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_notebook_runs_on_480_images(
    tmp_path: Path, digits_root: str, random_classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, on shards that are there; at full length it makes them, and starts Ray."""
    shutil.copytree(digits_root, tmp_path / "shards")
    classifier = random_classifier.removeprefix("classifier:")
    shutil.copy(classifier, tmp_path / "shards/digits_lt")
    monkeypatch.chdir(tmp_path)
    make_database(tmp_path / "runs")
    quick = ' "cluster.workers": 0, "model.channels": 16,'
    quick += ' "eval.num_images": 100, "sample.num_steps": 4,'
    cells: dict[str, Any] = {}
    exec(notebook(480, quick), cells)
    assert cells["outcome"]["progress"]["num_seen"] == 480
    assert (tmp_path / "runs/quickstart/config.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_at_full_length_learns_the_digits(tmp_path: Path) -> None:
    (tmp_path / "notebook.py").write_text(notebook(72_000))
    env = os.environ | {"PYTHONPATH": str(NOTEBOOK.parents[1]), "RAY_ADDRESS": "local"}
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "runs/quickstart/config.json").exists()
    assert float(done.stdout.rpartition("FID ")[2]) < 8
