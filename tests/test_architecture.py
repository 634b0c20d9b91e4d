"""Imports run one way, and the maths knows nothing of the cluster."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from import_table import MAY_IMPORT, OWNER, PREP_MAY_IMPORT, TUNE_MAY_IMPORT

HERE = Path(__file__).parent.parent


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
    below = {part: set(parts) for part, parts in MAY_IMPORT.items()}
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
    assert len(path.read_text().splitlines()) <= 350


COMMANDS = "train", "sample", "evaluate", "export", "classify"


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
