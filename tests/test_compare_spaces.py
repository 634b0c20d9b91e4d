"""A comparison in several feature spaces: the same sets, and each space as it is alone."""

import json
import re
import shutil
from pathlib import Path

import pytest
from test_compare_run import compare, compared, files_of, found_in, options, root  # noqa: F401
from test_feature_spaces import network

from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import absolute_paths
from tune.compare import COMMAND, main
from tune.comparison.network_job import do_network
from tune.comparison.options import CompareOptions
from tune.comparison.protocol import digest, read_protocol
from tune.comparison.run import make_jobs, make_plan
from tune.comparison.scores import VERSION

HOME = Path("compare/small/confirm")
SET = r"sets/\w+-seed\d/\d{12}-1-[0-9a-f]{12}"
KINDS = r"(\.npz|-scores\.json)"


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return network(tmp_path_factory.mktemp("second"), 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory, compared, root, second):  # noqa: F811
    """The folder of a comparison in one space, to which another was added; its files before and
    after, and what was found before. Read only.

    In between other numbers are written into the score files of a network, in the form of a
    comparison in one space, so that computing them again would show.
    """
    folder = shutil.copytree(compared, tmp_path_factory.mktemp("spaces") / "copy")
    alone = found_in(folder)
    run = json.loads((folder / HOME / "networks/cbdm-seed0/config.json").read_text())
    key = digest(VERSION, run["image"]["fingerprint"])
    for file in (folder / HOME / "sets/cbdm-seed0").glob("*-scores.json"):
        assert json.loads(file.read_text())["key"] == key
        file.write_text(json.dumps({"key": key, "halves": [{"fid": 3.5}, {"fid": 4.5}]}))
    before = files_of(folder)
    assert compare(folder, root, "--extractor", "classifier", second) == 0
    return folder, before, files_of(folder), alone


@pytest.fixture
def copy(made, tmp_path):
    """Of that folder, to write in."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def train_first(folder, root, *extractors):  # noqa: F811
    """What the command does with the first network, ddpm-seed0, in these spaces."""
    words = COMMAND.read([*options(folder, root), "--extractor", *extractors])
    asked = with_values(CompareOptions(), words)
    plan = make_plan(asked, read_protocol(asked.protocol), write=True)
    do_network(make_jobs(plan, {"ddpm": 1.0, "cbdm": 2.0})[0], 0)


def files_in(folder):
    """Those of the first network's sets."""
    home = folder / HOME / "sets/ddpm-seed0"
    return {file.name: file.read_bytes() for file in home.iterdir()}


def test_another_space_trains_and_samples_nothing_and_makes_no_score_again(made):
    _, before, after, _ = made
    assert {name: after[name] for name in before} == before
    sets = [name for name in before if name.startswith("sets/")]
    assert len(sets) == 2 * 8 and all(re.fullmatch(SET + KINDS, name) for name in sets)
    new = set(after) - set(before)
    assert len(new) == 2 * 8
    assert all(re.fullmatch(f"{SET}-[0-9a-f]{{16}}{KINDS}", name) for name in new)


def test_what_was_scored_before_is_taken_as_it_is(made):
    lines, alone = found_in(made[0])["lines"], made[3]["lines"]
    assert [line["by_seed"] for line in lines[:2]] == [line["by_seed"] for line in alone[:2]]
    cbdm, was = lines[2]["by_seed"], alone[2]["by_seed"]
    assert cbdm["1"] == was["1"]
    assert cbdm["0"]["scores"] == {"fid": 4.0} != was["0"]["scores"], "as it was written there"


def test_further_numbers_are_those_of_the_choice_in_the_first_space(made):
    found = found_in(made[0])
    (other,) = found["further"]
    assert [line["name"] for line in other["lines"]] == ["ddpm", "ddpm, by group", "cbdm"]
    assert set(other["references"]) == set(found["references"])
    assert other["references"] != found["references"]
    for mine, theirs in zip(found["lines"], other["lines"], strict=True):
        for seed, report in mine["by_seed"].items():
            assert theirs["by_seed"][seed]["chosen"] == report["chosen"]
    one = other["lines"][0]["by_seed"]["0"]
    reported = []
    for half, chosen in enumerate(one["chosen"]):
        (file,) = (
            n for n in files_in(made[0]) if re.match(rf"{chosen['stop']:012d}.*-.{{16}}-s", n)
        )
        halves = json.loads(files_in(made[0])[file])["halves"]
        reported.append(halves[1 - half]["fid_few"])
    assert one["scores"]["fid_few"] == pytest.approx(sum(reported) / 2, rel=1e-12)
    table = (made[0] / HOME / "table.md").read_text()
    assert f"in the feature space of {other['extractor']}, of the same images" in table


def test_each_space_has_the_numbers_of_a_comparison_in_it_alone(made, copy, root, second):  # noqa: F811
    train_first(copy, root, second)
    there = files_in(made[0])
    for images in ("000000000096", "000000000192"):
        (scores,) = (n for n in there if re.match(rf"{images}-1-\w+-\w{{16}}-scores", n))
        (alone,) = (
            n for n in files_in(copy).keys() - there if re.match(rf"{images}.*scores", n)
        )
        assert files_in(copy)[alone] == there[scores]


def test_it_goes_on_where_it_was_killed(made, copy, root, second):  # noqa: F811
    """Features without scores, and sets without features."""
    names = sorted(n for n in files_in(copy) if re.search(r"-\w{16}(-scores)?\.", n))
    assert len(names) == 4
    for name in (names[0], *names[2:]):
        (copy / HOME / "sets/ddpm-seed0" / name).unlink()
    train_first(copy, root, "classifier", second)
    assert files_in(copy) == files_in(made[0])


def test_extractors_that_give_no_spaces_are_refused_before_anything_is_trained(
    tmp_path,
    root,  # noqa: F811
    second,
    capsys,
):
    colour = network(tmp_path, 1, channels=3)
    for words, says in (
        (("classifier", "vgg"), "extractor 'vgg' is not known. Choose from: classifier, "),
        (
            ("classifier", "classifier:/no/net"),
            "extractor classifier needs the file /no/net, whi",
        ),
        (
            ("classifier", f"classifier:{tmp_path}"),
            f"needs the file {tmp_path}, which does not",
        ),
        ((second, second), f"extractor: {second} and {second} are the same network"),
        (("classifier", "none"), "extractor none gives no numbers. Try --extractor"),
        (("classifier", colour), "trained on images (3, 8, 8), not on (1, 8, 8)"),
    ):
        assert compare(tmp_path, root, "--extractor", *words) == 1
        assert says in capsys.readouterr().err
    file, text = tmp_path / "small.yaml", (tmp_path / "small.yaml").read_text()
    for value, says in (
        ("[classifier, vgg]", "extractor 'vgg' is not known"),
        ("[]", "extractor names none. Try extractor: classifier."),
        ("7", "extractor takes one or more of: text, got '7'"),
    ):
        file.write_text(f"{text}extractor: {value}\n")
        assert main(options(tmp_path, root)) == 1
        assert says in capsys.readouterr().err
    assert not (tmp_path / HOME / "networks").exists()


def test_a_protocol_names_one_extractor_or_several_and_paths_typed_are_absolute(
    tmp_path, monkeypatch
):
    text = Path("tune/protocols/digits.yaml").read_text()
    for value, names in (
        ("inception", ("inception",)),
        ("[dinov2, inception]", ("dinov2", "inception")),
    ):
        (tmp_path / "mine.yaml").write_text(f"{text}\nextractor: {value}\n")
        assert read_protocol(str(tmp_path / "mine.yaml")).extractors == names
    monkeypatch.chdir(tmp_path)
    typed = absolute_paths(CompareOptions(extractor=("classifier", "classifier:a/net")))
    assert typed.extractor == ("classifier", f"classifier:{tmp_path}/a/net")
