"""clusters/README.md and its files name what is there, in the versions that are tested."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from cbdm_scale.train import parse

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "clusters"
FILES = sorted(f for f in CLUSTERS.rglob("*") if f.is_file() and f.name != "README.md")
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def test_the_read_me_has_a_row_for_every_file_and_no_other():
    named = set(re.findall(r"\]\(([\w./-]+)\)", (CLUSTERS / "README.md").read_text()))
    own = {name for name in named if not name.startswith("..")}
    files = {str(f.relative_to(CLUSTERS)) for f in FILES}
    assert files - {"Dockerfile.dockerignore"} == own
    assert all((CLUSTERS / name).exists() for name in named)


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.suffix == ".yaml"], ids=lambda f: f.name
)
def test_every_yaml_parses(file):
    assert all(list(yaml.safe_load_all(file.read_text())))


def test_versions_are_those_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for file in FILES:
        text = file.read_text()
        assert set(re.findall(r"cbdm_scale:([\w.]+)", text)) <= {version}, file
        assert set(re.findall(r"rayVersion: \"(.*)\"", text)) <= {CONSTRAINTS["ray"]}, file
        assert "latest" not in re.sub(r"\S*/latest/ami-id", "", text), file


@pytest.mark.parametrize("file", [CLUSTERS / "README.md", *FILES], ids=lambda f: f.name)
def test_no_secret_and_no_registry_of_somebodys_stands_in_it(file):
    text = file.read_text()
    assert not re.search(r"(?i)(password|token|secret)\w*[=:] ?['\"]?[0-9a-f]{12,}", text)
    images = re.findall(r"^ *-? *image: (\S+)", text, re.MULTILINE)
    assert set(images) <= {"registry.example.com/cbdm_scale:0.1.0", "redis:7.4.6-alpine"}


def commands():
    """The options that the files and the read-me give to the train command."""
    for file in [CLUSTERS / "README.md", *FILES]:
        text = re.sub(r"\\?\n\s*#?\s*(?=--)", " ", file.read_text())
        for line in re.findall(r"-m cbdm_scale\.(?:train|preflight) (.*)", text):
            line = re.sub(r'"\$\w+"', "4", line.replace('"$@"', ""))
            words = re.sub(r"['\"`#&].*", "", line).split()
            if words and "..." not in words:
                yield pytest.param(words, id=f"{file.name}: {' '.join(words)[:50]}")


@pytest.mark.parametrize("words", list(commands()))
def test_its_train_commands_are_understood(words):
    parse(words)
