"""Imports run one way, and the maths knows nothing of the cluster."""

import ast
import subprocess
import sys
from ast import literal_eval
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from import_table import MAY_IMPORT, OWNER, PREP_MAY_IMPORT, TUNE_MAY_IMPORT

from cbdm_scale.__main__ import COMMANDS

HERE = Path(__file__).parent.parent


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a file's syntax tree, read once."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file, lazy imports included."""
    found = set()
    for node in nodes(path):
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


DUNDER = {"__init__", "__main__"}  # the map; and cbdm, which imports the command that is named
PACKAGE = [p for p in sorted((HERE / "cbdm_scale").rglob("*.py")) if part_of(p) not in DUNDER]
PREP = sorted((HERE / "data_prep").rglob("*.py"))
TUNE = sorted((HERE / "tune").rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(HERE).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=short)
def test_imports_run_one_way(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is not in the table: say what it may import"
    assert ours(path) <= MAY_IMPORT[part] | {part}


def test_the_table_has_no_circle_and_eight_floors():
    below = {part: set(parts) for part, parts in MAY_IMPORT.items()}
    below["data_prep"] = PREP_MAY_IMPORT
    order = list(TopologicalSorter(below).static_order())
    assert len(order) == len(below)
    floors = {}
    for part in order:
        floors[part] = 1 + max((floors[other] for other in below[part]), default=0)
    assert max(floors.values()) <= 8, f"the longest chain of imports grew: {floors}"


def test_the_package_has_few_rooms_and_few_loose_modules():
    """A room is a folder of the package, or a module that lies beside them."""
    loose = {path.name for path in PACKAGE if path.parent.name == "cbdm_scale"}
    assert len({part_of(path) for path in PACKAGE}) <= 27 and len(loose) <= 8


def test_the_map_names_every_part():
    words = set((HERE / "cbdm_scale/__init__.py").read_text().replace(",", " ").split())
    parts = {part_of(path) for path in PACKAGE}
    assert parts <= {word.rstrip(".:") for word in words}


def test_public_functions_have_docstrings():
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    for path in PACKAGE + PREP + TUNE:
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        bodies = [tree.body, *(one.body for one in classes if one.name[0] != "_")]
        for node in (node for body in bodies for node in body):
            if isinstance(node, functions) and node.name[0] != "_":
                assert ast.get_docstring(node), f"{short(path)}: {node.name}"


INTERNALS = (
    "cbdm_scale/cluster/ray_internals.py",
    "cbdm_scale/tracking/mlflow_internals.py",
    "cbdm_scale/torch_internals.py",
)


def test_private_parts_of_a_library_stand_in_its_one_module():
    for path in PACKAGE + PREP + TUNE:
        found = [
            name
            for name in imports(path)
            if name.startswith(("ray.", "mlflow.", "torch."))
            and any(part[0] == "_" != part[1] for part in name.split("."))
        ]
        assert short(path) in INTERNALS or not found, f"{short(path)}: {found}"


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


HEAVY = (
    *("torch", "numpy", "pyarrow", "scipy", "PIL", "fsspec", "ray", "mlflow", "optuna"),
    *("sklearn", "matplotlib", "altair"),
)
WRONG = {
    "train": ["--loss.tau", "-1"],
    "sample": ["--run", "r", "--num-images", "0"],
    "evaluate": ["--run", "r", "--guidance", "much"],
    "export": ["--resolution", "large"],
    "classify": ["--seeds", "1", "1"],
    "preflight": ["--train.lr", "0"],
    "search": ["--trials", "1"],
    "compare": ["--parallel", "-1"],
    "prepare": ["digits-lt", "--channels", "2", "--out", "o"],
    "balance": ["--run", "r", "--to", "half", "--out", "o"],
    "verify": ["shards", "--workers", "-1"],
    "describe": [],
    "runs": ["--keep-checkpoints", "0"],
}
"""A value that each command refuses."""


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "completion"])
def test_help_and_a_wrong_option_answer_without_a_heavy_import(command):
    """Importing torch takes seconds. A wrong value is found before --run is looked for."""
    calls = [
        [command, *words] for words in (["--help"], ["--help-all"], ["--none"], WRONG[command])
    ]
    code = f"""
import sys
from cbdm_scale.__main__ import main
found = []
for words in {calls}:
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    found.append((status, [name for name in {HEAVY} if name in sys.modules]))
print(found)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE
    )
    found = literal_eval(found.stdout.splitlines()[-1])
    assert found[:3] == [(0, []), (0, []), (2, [])]
    assert found[3] in ((1, []), (2, [])), "2: a word that is needed is missing"


def test_argv_is_read_in_one_place():
    readers = [
        short(path)
        for path in PACKAGE + PREP + TUNE
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr == "argv"
    ]
    assert readers == ["cbdm_scale/cli/command.py"]
