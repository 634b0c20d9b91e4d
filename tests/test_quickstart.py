"""The notebook runs from its first cell to its last, as a user would run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def run(folder: Path, num_images: int, **environment: str) -> float:
    """The FID at omega 1 of the whole notebook, in a process and a folder of its own."""
    code = "\n\n".join(code_cells())
    assert code.count(LENGTH) == 1 and code.count(f"\n{GRID}") == 1
    code = code.replace(LENGTH, f"NUM_IMAGES = {num_images}")
    if num_images < 10_000:  # and as quickly evaluated
        total = '"train.total_images": NUM_IMAGES,'
        assert code.count(total) == 1
        code = code.replace(total, f'{total}\n    "eval.num_images": 100,')
    code = code.replace(f"\n{GRID}", f"\ngrid = {GRID}")
    script = folder / "notebook.py"
    script.write_text(code + LAST)
    env = os.environ | {"PYTHONPATH": str(NOTEBOOK.parents[1])} | environment
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "runs/quickstart/config.json").exists()
    return float(done.stdout.rpartition("FID ")[2])


def test_the_notebook_is_short_and_holds_no_output() -> None:
    lines = [line for cell in code_cells() for line in cell.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(("import ", "from "))]
    assert len(others) <= 25
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.ray
def test_the_notebook_runs_on_2400_images(work: Path, tmp_path: Path) -> None:
    """In the tests' cluster, on their shards; at full length it makes both."""
    shutil.copytree(work / "shards", tmp_path / "shards")
    assert run(tmp_path, 2_400) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_at_full_length_learns_the_digits(tmp_path: Path) -> None:
    assert run(tmp_path, 72_000, RAY_ADDRESS="local") < 8
