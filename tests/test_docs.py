"""What README and docs/ name exists: files, sections, commands, options, make targets."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "clusters").glob("*.md")),
    *sorted((ROOT / "tune").glob("*.md")),
]
PAGES_WITH_COMMANDS = [page for page in PAGES if page.name != "CHANGELOG.md"]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", title.lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), link


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    files = [f.name for f in (ROOT / "docs").iterdir() if f.suffix in (".md", ".ipynb")]
    assert all(f"]({name})" in index for name in files if name != "README.md")


def command_lines(page: Path) -> list[list[str]]:
    """Words of every line of an indented or fenced block, and of every span of code."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^    +(\S.*)$", text, flags=re.MULTILINE)
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    found = []
    for line in lines:
        try:
            found.append(shlex.split(line, comments=True))
        except ValueError:  # a quotation mark of something else than a shell
            continue
    return found


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """(module, its words) of every command of ours."""
    found = []
    for words in command_lines(page):
        if words[:2] == ["python", "-m"]:
            found.append((words[2], words[3:]))
        elif words[:1] == ["cbdm"] and len(words) > 1:
            found.append((f"cbdm {words[1]}", words[2:]))
        elif words[:3] == ["ray", "job", "submit"] and "--" in words:
            job = words[words.index("--") + 1 :]
            is_module = job[:2] == ["python", "-m"]
            found.append((job[2], job[3:]) if is_module else ("tune.search_tau", job[2:]))
        elif words[:2] == ["python", "tune/search_tau.py"]:
            found.append(("tune.search_tau", words[2:]))
    return found


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Command -> its options on any backbone, as the command itself knows them."""
    code = """
import json
from importlib import import_module
from cbdm_scale.__main__ import COMMANDS
from cbdm_scale.cli.command import options_of
found = {}
for module in sorted({m for m, _ in COMMANDS.values() if m}):
    loaded = import_module(module)
    for command in getattr(loaded, "COMMANDS", None) or [loaded.COMMAND]:
        flags = [f for o in options_of(command.parts).values() for f in (o.flag, o.no_flag)]
        found[f"cbdm {command.name}"] = flags
        found[module] = sorted({*found.get(module, []), *flags})
found["cbdm completion"] = []
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {name: set(flags) for name, flags in json.loads(done.stdout).items()}
    return found | {"data_prep": found["data_prep.__main__"]}


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=page_id)
def test_every_command_and_option_exists(page: Path, options: dict[str, set[str]]) -> None:
    for name, words in commands_of(page):
        if name.startswith("cbdm ") or name in options:
            assert name in options, f"{name}: no such command"
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            unknown = flags - options[name] - {"--help", "--help-all"}
            assert not unknown, f"{name} {unknown}"
        elif name.split(".")[0] in ("benchmarks", "cbdm_scale", "tune", "data_prep"):
            file = ROOT / name.replace(".", "/")
            assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), name


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=page_id)
def test_every_make_target_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in command_lines(page):
        if words[:1] == ["make"] and len(words) > 1 and not words[1].startswith("PYTHON"):
            target = words[1]
            assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_the_python_of_the_readme_runs_as_far_as_it_trains() -> None:
    """All its imports and the configuration; training is the notebook's test."""
    [code] = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL
    )
    lines = [line for line in code.splitlines() if line.startswith(("from ", "options"))]
    assert "outcome = launch_run(with_options(preset(" in code
    lines.append('with_options(preset("digits_lt", "cbdm"), options)')
    script = "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 5 <= len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_equations_are_where_the_table_says() -> None:
    """Every file, and every test of it, that docs/paper.md names."""
    folders = ROOT / "cbdm_scale", ROOT / "tests", ROOT
    for row in (ROOT / "docs" / "paper.md").read_text().splitlines():
        tests = ""
        for path in re.findall(r"`([\w/]+\.py)`", row):
            found = [folder / path for folder in folders if (folder / path).exists()]
            assert found, f"{path} in: {row}"
            if "/" not in path:
                tests += found[0].read_text()
        if row.startswith("|") and tests:
            for name in re.findall(r"`(test_\w+)`", row):
                assert f"def {name}(" in tests, f"{name} in: {row}"
