"""Options of dataclasses as a command line that is read once."""

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest

from cbdm_scale.__main__ import COMMANDS, main
from cbdm_scale.cli.command import Command, main_of, options_of
from cbdm_scale.cli.completion import completion_script
from cbdm_scale.storage.json import structure, with_values


@dataclass(frozen=True, kw_only=True)
class Part:
    size: float = 1.0
    """How large. And more of it, that only --help-all says."""

    flip: bool = True
    """Whether it is mirrored."""

    numbers: tuple[int, ...] = (1, 2)
    """Some of them."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str = ""
    kind: Literal["a", "b"] = "a"
    """Of which kind."""

    limit: int | None = None
    part: Part = field(default_factory=Part)


COMMAND = Command(
    name="thing", about="What it does.", parts=(Whole(),), short={"more": ("kind", "part.size")}
)


def test_a_choice_of_numbers_is_a_number():
    @dataclass(frozen=True, kw_only=True)
    class Image:
        channels: Literal[1, 3] | None = None

    command = Command(name="image", about="", parts=(Image(),), short={})
    assert with_values(Image(), command.read(["--channels", "3"])) == Image(channels=3)
    with pytest.raises(ValueError, match="channels takes 1 or 3, got '2'"):
        with_values(Image(), command.read(["--channels", "2"]))
    with pytest.raises(ValueError, match="--channels takes 1 or 3, got 'grey'"):
        command.read(["--channels", "grey"])


def test_what_was_typed_comes_out_by_dotted_name_and_nothing_else():
    assert COMMAND.read([]) == {}
    typed = COMMAND.read(
        [
            "--part.size=2",
            "--part.no-flip",
            "--part.numbers",
            "3",
            "4",
            "--name",
            "x",
            "--limit",
            "5",
        ]
    )
    assert typed == {
        "part.size": 2.0,
        "part.flip": False,
        "part.numbers": (3, 4),
        "name": "x",
        "limit": 5,
    }
    part = Part(size=2.0, flip=False, numbers=(3, 4))
    assert with_values(Whole(), typed) == Whole(name="x", limit=5, part=part)


def test_the_last_of_two_counts_and_dashes_are_underscores():
    assert COMMAND.read(["--limit", "1", "--limit", "none"]) == {"limit": None}
    command = Command(name="t", about="", parts=(Underscored(),), short={})
    assert command.read(["--two_words", "a_b"]) == command.read(["--two-words", "a_b"])


@dataclass(frozen=True)
class Underscored:
    two_words: str = ""


def test_a_wrong_word_is_answered_with_the_option_that_was_meant(capsys):
    for words, hint in (
        (["--size", "3"], "--size is no option of .* Did you mean --part.size?"),
        (["--part.sise", "3"], "Did you mean --part.size?"),
        (["--zzz"], "See --help-all."),
        (["--mime"], "See --help-all."),  # --name, if dashes counted
        (["stray"], "stray belongs to no option"),
    ):
        with pytest.raises(SystemExit) as end:
            COMMAND.read(words)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert all(part in error for part in hint.split(" .* ")), error
    with pytest.raises(ValueError, match=r"--part.size takes a number, got 'big'"):
        COMMAND.read(["--part.size", "big"])


def test_short_help_has_what_most_people_need_and_says_where_the_rest_is(capsys):
    for word in ("--help", "-h", "--help-all"):
        with pytest.raises(SystemExit) as end:
            COMMAND.read(
                [word, "--part.size", "7"], lambda typed: [with_values(Whole(), typed)]
            )
        assert end.value.code == 0
        text = capsys.readouterr().out
        every = word == "--help-all"
        assert "--kind a|b" in text and "(7)" in text, "defaults follow what was typed"
        assert ("--part.no-flip" in text) == every == ("And more of it" in text)
        assert every or "--help-all" in text


def test_a_command_is_typed_again_with_other_options():
    typed = COMMAND.read(["--name", "a b", "--part.no-flip", "--part.numbers", "1", "2"])
    line = COMMAND.line(typed, kind="b", name=None)
    assert line == f"{COMMAND.prog} --part.no-flip --part.numbers 1 2 --kind b"
    assert COMMAND.line({"name": "a b"}).endswith("thing --name 'a b'")


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("x"), 1), (OSError("x"), 1), (KeyboardInterrupt(), 130), (None, 0)],
)
def test_the_exit_status_of_every_command(error, status, capsys):
    @main_of
    def body(argv):
        if error:
            raise error

    assert body([]) == status
    assert ("error: x" in capsys.readouterr().err) == (status == 1)


# ----------------------------------------------------------------------------
# cbdm.


def test_the_command_alone_lists_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert main(["tran"]) == 1
    assert "tran is no command. Choose from: prepare" in capsys.readouterr().err


def test_a_command_gets_the_words_after_its_name(capsys):
    for words in (["train", "--loss.tua", "1"], ["verify", "--loss.tua", "1"]):
        with pytest.raises(SystemExit):
            main(words)
        assert (
            f"--loss.tua is no option of {COMMAND.prog[:-5]}{words[0]}"
            in capsys.readouterr().err
        )


def test_bash_completes_commands_options_and_choices(tmp_path):
    script = tmp_path / "cbdm.sh"
    script.write_text(completion_script([COMMAND], "bash"))
    code = f"""source {script}
COMP_WORDS=(cbdm thing --part); COMP_CWORD=2; _shtab_cbdm; echo ${{COMPREPLY[@]}}
COMP_WORDS=(cbdm th); COMP_CWORD=1; _shtab_cbdm; echo ${{COMPREPLY[@]}}"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    options, commands = done.stdout.splitlines()
    assert "--part.size" in options.split() and "--part.no-flip" in options.split()
    assert commands == "thing"
    with pytest.raises(ValueError, match=r"completion \(cmd\) is made for bash"):
        completion_script([COMMAND], "cmd")


# ----------------------------------------------------------------------------
# JSON as values of dataclasses.


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"part": {"size": "1"}}, r"part.size takes a number, got '1'"),
        ({"part": {"size": True}}, "part.size takes a number, got 'True'"),
        ({"part": {"size": float("inf")}}, "part.size takes a number, got 'inf'"),
        ({"part": {"numbers": [1.5]}}, "part.numbers takes a whole number, got '1.5'"),
        ({"part": {"flip": 1}}, "part.flip takes true or false, got '1'"),
        ({"part": 3}, "part takes an object, got '3'"),
        ({"kind": "c"}, "kind takes a or b, got 'c'"),
        ({"limit": 1.5}, "limit takes a whole number, got '1.5'"),
        ({"nmae": ""}, "nmae is no option"),
        ([], r"it takes an object"),
    ],
)
def test_a_value_of_another_kind_is_named(tree, words):
    with pytest.raises(ValueError, match=words):
        structure(Whole, tree, "")


def test_what_is_absent_has_its_default_and_an_integer_is_a_number():
    found = structure(Whole, {"part": {"size": 3, "numbers": []}, "limit": None}, "")
    assert found == Whole(part=Part(size=3.0, numbers=()))
    assert isinstance(found.part.size, float)


def test_every_option_has_help():
    assert options_of([Whole()])["part.size"].help.startswith("How large.")


def test_a_reader_that_has_seen_enough_is_no_error():
    """As | head is."""
    words = [sys.executable, "-u", "-m", "cbdm_scale", "train", "--help-all"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout and command.stderr
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0
