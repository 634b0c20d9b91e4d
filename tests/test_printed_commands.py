"""What a command prints to be typed next is one that a shell reads as it is meant."""

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cbdm_scale import evaluate, sample
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import prep_command
from cbdm_scale.data.options import DataConfig
from cbdm_scale.storage.folder import Storage
from tune.results import train_command

ROOT = Path(__file__).parents[1]
PLACE = "/my photos (2024)/what?'s"
BEST = SimpleNamespace(best=SimpleNamespace(omega=1.6))


def network(folder, preset="cbdm"):
    return SimpleNamespace(folder=folder, config=Config(preset=preset))


@pytest.mark.parametrize(
    "line",
    [
        prep_command(PLACE, "mine"),
        prep_command(PLACE, "digits_lt"),
        sample.train_command(network("/x y/run"), "mine", PLACE),
        train_command(replace(Config(), data=DataConfig(root=PLACE)), f"{PLACE}/winner.json"),
        evaluate.following(
            evaluate.EvaluateOptions(run=PLACE), BEST, {"run": PLACE, "data.root": PLACE}
        ),
    ],
)
def test_a_place_with_spaces_and_signs_is_one_word(line):
    words = shlex.split(line)
    assert sum(PLACE in word for word in words) == line.count(PLACE[:8]) >= 1
    assert not [word for word in words if word.startswith(("(2024)", "photos"))]


def test_only_options_that_are_not_at_their_defaults_are_printed():
    usual = f"{Storage(Config().cluster.storage).url}/run"
    line = sample.train_command(network(usual, "small"), "mine", "/shards")
    end = "--dataset mine --data.root /shards --preset small --name on-generated"
    assert line.endswith(f" train {end}") or line.endswith(f".train {end}")
    assert "--preset" not in sample.train_command(network(usual), "mine", "/shards")
    other = sample.train_command(network("/runs/run"), "mine", "/shards")
    assert "--cluster.storage /runs --name" in other
    assert train_command(Config(), "winner.json").endswith("train --config winner.json")
    root = replace(Config(), data=DataConfig(root="/shards"))
    assert train_command(root, "w.json").endswith("--config w.json --data.root /shards")


def test_after_an_evaluation_the_best_set_is_made_of_the_same_network():
    typed = {"run": "r", "weights": "raw", "seed": 3, "against": "s", "num_images": 50}
    line = evaluate.following(evaluate.EvaluateOptions(run="r"), BEST, typed)
    assert line.endswith("sample --run r --weights raw --seed 3 --guidance 1.6")
    given = evaluate.EvaluateOptions(run="r", samples="a.npz")
    line = evaluate.following(given, BEST, {"run": "r", "samples": "a.npz", "seed": 3})
    assert line.endswith("evaluate --run r --seed 3")


MODULE_FORM = re.compile(r"(?<!-- )python (?:-m (?:cbdm_scale\.|data_prep|tune)|tune/)")
JOB_OF_CBDM = re.compile(r"ray job submit [^\n]*-- cbdm")
SAID = {"docs/usage.md": "Each is also a module", "README.md": "each command is also a module"}


def test_what_is_printed_and_documented_names_commands_by_one_form():
    """cbdm NAME; ``prog_of`` alone knows the other, and one sentence of README and usage.md.

    A job has the other: it runs the code of its working directory, not what is installed.
    """
    for part in ("cbdm_scale", "data_prep", "tune"):
        for file in (ROOT / part).rglob("*.py"):
            tree = ast.parse(file.read_text())
            body = tree.body[1:] if ast.get_docstring(tree) else tree.body
            nodes = [node for top in body for node in ast.walk(top)]
            texts = [n.value for n in nodes if isinstance(n, ast.Constant)]
            found = [t for t in texts if isinstance(t, str) and MODULE_FORM.search(t)]
            assert not found, f"{file}: {found}"
    for file in [*(ROOT / "cbdm_scale").rglob("*.j2"), *(ROOT / "docs").glob("*.ipynb")]:
        assert not MODULE_FORM.search(file.read_text()), file
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "tune/README.md"]:
        text = page.read_text()
        assert not JOB_OF_CBDM.search(text), page
        paragraphs = text.split("\n\n")
        name = page.relative_to(ROOT).as_posix()
        found = [p for p in paragraphs if MODULE_FORM.search(p)]
        assert [p for p in found if SAID.get(name, "\n") not in p] == [], name
