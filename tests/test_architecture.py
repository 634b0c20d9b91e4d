"""Imports run one way, and the maths knows nothing of the cluster."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent

# What each part may import, besides itself. Read top to bottom, this is the design.
MAY_IMPORT = {
    # Plain: numbers, storage.
    "types": set(),
    "labels": set(),
    "draws": set(),
    "remote": set(),
    "storage": {"remote"},
    # The method, in the order of the data's way through it.
    "data": {"labels", "draws", "remote"},
    "diffusion": set(),
    "models": set(),
    "losses": {"types", "labels", "draws", "diffusion"},
    "training": {"draws", "storage", "data", "losses"},
    "sampling": {"types", "draws", "diffusion"},
    "downstream": {"draws", "labels", "data", "training"},
    "evaluation": {"types", "labels", "data", "diffusion", "sampling", "downstream"},
    "report": {"evaluation", "labels"},
    # On top: what connects the parts to a run, a cluster and a user.
    "tracking": {"remote", "storage", "serve"},
    "cluster": {"storage", "training"},
    "config": {
        "cluster",
        "data",
        "diffusion",
        "evaluation",
        "losses",
        "models",
        "sampling",
        "tracking",
        "training",
    },
    "settings": {
        "cluster",
        "config",
        "data",
        "evaluation",
        "losses",
        "models",
        "sampling",
        "training",
    },
    "presets": {"config", "data", "models", "settings"},
    "overrides": {"config", "diffusion", "sampling"},
    "preset_file": {"overrides", "config", "data", "presets"},
    "serve": {"config", "sampling", "storage"},
    "examine": {
        "config",
        "data",
        "diffusion",
        "evaluation",
        "storage",
        "training",
    },
    "judge": {
        "cluster",
        "config",
        "evaluation",
        "examine",
        "storage",
        "tracking",
        "training",
    },
    "run": {
        "cluster",
        "config",
        "data",
        "draws",
        "examine",
        "judge",
        "losses",
        "storage",
        "tracking",
        "training",
    },
    "origin": {
        "cluster",
        "config",
        "data",
        "diffusion",
        "models",
        "remote",
        "sampling",
        "storage",
        "tracking",
        "training",
    },
    "finetune": {
        "cluster",
        "config",
        "data",
        "models",
        "origin",
        "preset_file",
        "sampling",
        "storage",
        "training",
    },
    "imageset": {
        "cluster",
        "data",
        "data_prep",
        "diffusion",
        "draws",
        "evaluation",
        "labels",
        "models",
        "origin",
        "sampling",
        "storage",
    },
    "sample": {
        "cluster",
        "config",
        "data",
        "imageset",
        "origin",
        "remote",
        "sampling",
        "storage",
    },
    "evaluate": {
        "cluster",
        "config",
        "data",
        "evaluation",
        "imageset",
        "origin",
        "remote",
        "report",
        "sampling",
        "storage",
        "tracking",
        "training",
    },
    "export": {
        "config",
        "data",
        "diffusion",
        "evaluation",
        "models",
        "origin",
        "remote",
        "report",
        "sampling",
        "storage",
    },
    "recognition": {
        "cluster",
        "data",
        "downstream",
        "evaluation",
        "labels",
        "remote",
        "storage",
        "tracking",
        "training",
    },
    "classify": {
        "claim",
        "cluster",
        "config",
        "data",
        "data_prep",
        "downstream",
        "presets",
        "recognition",
        "remote",
        "storage",
        "tracking",
    },
    "nodes": {"cluster", "config", "data", "storage", "tracking"},
    "claim": {"config", "data", "storage"},
    "command_line": {
        "config",
        "data",
        "finetune",
        "preset_file",
        "presets",
        "remote",
        "storage",
    },
    "train": {
        "claim",
        "cluster",
        "command_line",
        "config",
        "data",
        "data_prep",
        "evaluation",
        "finetune",
        "nodes",
        "preset_file",
        "remote",
        "run",
        "storage",
        "tracking",
    },
    "preflight": {
        "cluster",
        "command_line",
        "nodes",
        "remote",
        "storage",
        "tracking",
        "train",
    },
}
UPWARDS = {("tracking", "serve")}
"""served_model.py is the code that MLflow stores with a model: nothing of ours imports it."""

TUNE_MAY_IMPORT = {
    "claim",
    "cluster",
    "command_line",
    "config",
    "draws",
    "evaluation",
    "examine",
    "labels",
    "overrides",
    "preset_file",
    "presets",
    "remote",
    "report",
    "storage",
    "tracking",
    "train",
    "training",
}

PREP_MAY_IMPORT = {"cluster", "data", "downstream", "draws", "evaluation", "labels", "remote"}

# Files, or folders with a slash, that alone may import a library.
OWNER = {
    "ray": {
        "cbdm_scale/cluster/",
        "data_prep/writing/pool.py",
        "tune/on_ray.py",
        "tune/population.py",
    },
    "optuna": {"tune/ask.py"},
    "mlflow": {"cbdm_scale/tracking/"},
    "webdataset": {"cbdm_scale/data/shards.py"},
    "tyro": {
        "cbdm_scale/command_line.py",
        "cbdm_scale/sample.py",
        "cbdm_scale/evaluate/",
        "cbdm_scale/export/",
        "cbdm_scale/classify.py",
        "tune/search_tau.py",
    },
    "torch_fidelity": {"cbdm_scale/evaluation/inception.py"},
    "torch.distributed": {"cbdm_scale/training/world.py", "cbdm_scale/cluster/"},
}


@cache
def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file, lazy imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The parts of this project that a file imports."""
    dotted = [name.split(".") for name in imports(path)]
    parts = {name[1] for name in dotted if name[0] == "cbdm_scale" and name[1:]}
    prep = {"data_prep"} if any(name[0] == "data_prep" for name in dotted) else set()
    return (parts | prep) - {"__version__"}


def part_of(path: Path) -> str:
    return path.relative_to(HERE).parts[1].removesuffix(".py")


PACKAGE = [p for p in sorted((HERE / "cbdm_scale").rglob("*.py")) if part_of(p) != "__init__"]
PREP = sorted((HERE / "data_prep").rglob("*.py"))
TUNE = sorted((HERE / "tune").rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(HERE).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=short)
def test_imports_run_one_way(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is not in the table: say what it may import"
    assert ours(path) <= MAY_IMPORT[part] | {part}


def test_the_table_has_no_circle():
    below = {p: {q for q in parts if (p, q) not in UPWARDS} for p, parts in MAY_IMPORT.items()}
    below["data_prep"] = PREP_MAY_IMPORT
    assert len(list(TopologicalSorter(below).static_order())) == len(below)


def test_the_table_lists_what_is_there():
    assert set(MAY_IMPORT) == {part_of(path) for path in PACKAGE}
    for part, allowed in MAY_IMPORT.items():
        used = set().union(*(ours(path) for path in PACKAGE if part_of(path) == part))
        assert allowed == used - {part}, f"{part} no longer imports all that it may"


@pytest.mark.parametrize("path", PREP, ids=short)
def test_data_prep_uses_only_plain_parts(path):
    assert ours(path) <= PREP_MAY_IMPORT | {"data_prep"}


@pytest.mark.parametrize("path", TUNE, ids=short)
def test_a_search_uses_the_package_and_nothing_uses_the_search(path):
    assert ours(path) <= TUNE_MAY_IMPORT
    users = [p for p in PACKAGE + PREP if any(f"{n}.".startswith("tune.") for n in imports(p))]
    assert not users


@pytest.mark.parametrize("library", OWNER)
def test_libraries_have_an_owner(library):
    users = {
        short(path)
        for path in PACKAGE + PREP + TUNE
        if any(f"{name}.".startswith(f"{library}.") for name in imports(path))
    }
    assert users and all(any(user.startswith(o) for o in OWNER[library]) for user in users)


@pytest.mark.parametrize("path", PACKAGE + PREP + TUNE, ids=short)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


COMMANDS = "train", "sample", "evaluate.command", "export.command", "classify"


@pytest.mark.parametrize("command", [*(f"cbdm_scale.{c}" for c in COMMANDS), "tune.search_tau"])
def test_the_command_line_imports_neither_ray_nor_mlflow(command):
    """Or --help would take several times as long as importing torch."""
    heavy = [
        "ray",
        "mlflow",
        "optuna",
        "sklearn",
        "matplotlib",
        "scipy.stats",
        "pyarrow.dataset",
    ]
    code = f"import sys, {command}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE
    )
    assert found.stdout.strip() == "[]"
