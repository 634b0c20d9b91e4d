"""clusters/Dockerfile by the rules that hadolint holds, and by what it must bring."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "clusters" / "Dockerfile"


def instructions(text):
    """(KEYWORD, the rest) of a Dockerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (w.upper(), rest.strip())
        for w, _, rest in (x.partition(" ") for x in joined.split("\n"))
    ]


def faults(text):
    """What is wrong with a Dockerfile, by rule."""
    steps, found = instructions(text), []
    users = [rest for word, rest in steps if word == "USER"]
    if not users or users[-1].partition(":")[0] in ("root", "0"):
        found.append("runs as root")
    for word, rest in steps:
        if word == "FROM" and not re.fullmatch(
            r"[\w./-]+:\d[\w.]*\.\d+[\w.-]*( AS \w+)?", rest
        ):
            found.append("base without a whole version")
        if word == "ADD":
            found.append("ADD instead of COPY")
        if word in ("ENTRYPOINT", "CMD") and not rest.startswith("["):
            found.append(f"{word} in a shell")
        if word == "WORKDIR" and not rest.startswith("/"):
            found.append("relative WORKDIR")
        if word in ("ENV", "ARG") and re.search(r"(?i)(passw|secret|token|key)\w*=", rest):
            found.append("secret in the image")
        if word != "RUN":
            continue
        if "apt-get install" in rest:
            needed = "apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*"
            found += [f"apt-get without {part}" for part in needed if part not in rest]
            if not re.search(r"(-y|--yes)\b", rest):
                found.append("apt-get that asks")
        if "pip install" in rest:
            needed = "--no-cache-dir", "--constraint constraints.txt"
            found += [f"pip without {part}" for part in needed if part not in rest]
        if re.search(r"\b(sudo|curl|apt (get|install)|chmod 777)\b", rest):
            found.append("sudo, curl, apt or chmod 777")
        if re.search(r"(^|\s)cd ", rest):
            found.append("cd instead of WORKDIR")
    return found


def test_it_breaks_no_rule():
    assert faults(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    "line, spoilt, rule",
    [
        ("FROM .*", "FROM python:latest", "base without a whole version"),
        ("FROM .*", "FROM python", "base without a whole version"),
        ("USER .*", "USER root", "runs as root"),
        ("USER .*", "", "runs as root"),
        ("COPY data_prep .*", "ADD https://example.com/x.tar /x", "ADD instead of COPY"),
        (r" && rm -rf .*", "", "apt-get without rm -rf /var/lib/apt/lists/*"),
        ("--no-cache-dir ", "", "pip without --no-cache-dir"),
        (r"CMD .*", "CMD bash", "CMD in a shell"),
        ("ENV ", "ENV RAY_AUTH_TOKEN=abc ", "secret in the image"),
    ],
)
def test_a_broken_rule_is_seen(line, spoilt, rule):
    text = DOCKERFILE.read_text().replace("\\\n    && rm", " && rm")
    broken = re.sub(line, spoilt, text, count=1)
    assert broken != text and rule in faults(broken)


def test_what_it_copies_is_there_and_is_let_in():
    """The ignore file of this Dockerfile names what may come in; all else stays out."""
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for word, rest in instructions(DOCKERFILE.read_text()):
        if word == "COPY":
            copied |= set(shlex.split(rest)[:-1])
    assert copied == let_in and "*" in ignored
    assert all((ROOT / name).exists() for name in copied)
    assert not any(fnmatch(".git", name) or "shards" in name for name in let_in)


def test_it_brings_the_python_and_the_tools_that_its_users_need():
    text = DOCKERFILE.read_text()
    assert re.search(r"python:3\.1[1-9]", text), "pyproject.toml asks for 3.11"
    for tool in ("rsync", "wget", "tini"):  # launcher, KubeRay's probes, zombies
        assert re.search(rf"install .*\b{tool}\b", text.replace("\\\n", " "))
    assert "RAY_AUTH_MODE=token" in text
