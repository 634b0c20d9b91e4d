"""The command line of every command: options from dataclasses, read once.

A field ``tau`` of the part ``loss`` is the option --loss.tau; the string under it is its help.
What was typed comes out by dotted name, so that nothing has to look at the words again:
defaults may depend on it (a preset, a run), and are overlaid by it (``storage.json``).
Nothing here imports torch, numpy, ray or mlflow: --help and a wrong option answer at once.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import inspect
import os
import shlex
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from cbdm_scale.cli.signals import exit_status, interrupt, on_signal
from cbdm_scale.storage.checks import as_typed, bounds_in_words, field_types
from cbdm_scale.storage.json import in_words
from cbdm_scale.storage.remote import refuse_typed_passwords
from cbdm_scale.storage.wording import LONGEST, clip, prog_of

Typed = Mapping[str, Any]
"""Dotted name of an option -> the value that was typed."""


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """Dotted, as in a configuration: loss.label_power."""

    kind: Any
    """Type of its field, without None."""

    owner: type
    """The dataclass that has the field, and the string under it."""

    default: Any

    @property
    def flag(self) -> str:
        """As it is typed: --loss.label-power."""
        return "--" + self.name.replace("_", "-")

    @property
    def no_flag(self) -> str:
        """As a switch is typed that takes it back: --data.no-flip."""
        part, dot, last = self.flag.removeprefix("--").rpartition(".")
        return f"--{part}{dot}no-{last}"

    @property
    def field(self) -> str:
        """The last word of its name."""
        return self.name.rpartition(".")[2]

    @property
    def help(self) -> str:
        """The string under the field, in its dataclass or in one that this extends."""
        return _docs(self.owner).get(self.field, "")

    @property
    def bounds(self) -> str:
        """Of its numbers, in words."""
        return bounds_in_words(field_types(self.owner)[self.field])


def options_of(parts: Sequence[Any]) -> dict[str, Option]:
    """Every option of some dataclasses, by dotted name; the first part with a name has it."""
    found: dict[str, Option] = {}

    def add(part: Any, prefix: str) -> None:
        hints = get_type_hints(type(part))
        for field in fields(part):
            value, name = getattr(part, field.name), prefix + field.name
            if is_dataclass(value):
                add(value, f"{name}.")
            else:
                kind = _without_none(hints[field.name])
                found.setdefault(name, Option(name, kind, type(part), value))

    for part in parts:
        add(part, "")
    return found


def _without_none(kind: Any) -> Any:
    if NoneType in get_args(kind):
        return next(arg for arg in get_args(kind) if arg is not NoneType)
    return kind


@functools.cache
def _docs(owner: type) -> dict[str, str]:
    """The strings under the fields of a dataclass and of those that it extends."""
    tree = ast.parse(Path(inspect.getfile(owner)).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    body = next(node.body for node in classes if node.name == owner.__name__)
    found: dict[str, str] = {}
    for base in filter(is_dataclass, owner.__bases__):
        found |= _docs(base)
    for node, after in zip(body, body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = getattr(getattr(after, "value", None), "value", None)
            if isinstance(after, ast.Expr) and isinstance(text, str):
                found[node.target.id] = " ".join(text.split())
    return found


class _Parser(argparse.ArgumentParser):
    """Argparse's, with short errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {clip(message, LONGEST)}\n")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a command is called, what it takes, and what its --help says."""

    name: str
    """After cbdm."""

    about: str
    """The first lines of --help."""

    parts: tuple[Any, ...]
    """Dataclasses whose fields are the options, with the usual values."""

    short: Mapping[str, Sequence[str]]
    """Title -> options that --help lists; --help-all lists every one."""

    positional: tuple[str, ...] = ()
    """Options that are typed without their names, in this order."""

    epilog: str = ""
    """The last lines of --help."""

    @property
    def prog(self) -> str:
        """How it is started."""
        return prog_of(self.name)

    def read(
        self, argv: Sequence[str], defaults: Callable[[Typed], Sequence[Any]] | None = None
    ) -> dict[str, Any]:
        """What was typed. For --help: its text on stdout, and SystemExit.

        defaults: the parts with the values that follow from what was typed, for --help. A word
        that is no option ends with SystemExit, a value of another kind is a ValueError.
        """
        options = options_of(self.parts)
        parser = self.parser(options.values())
        parser.add_argument("-h", "--help", action="store_true", default=argparse.SUPPRESS)
        parser.add_argument("--help-all", action="store_true", default=argparse.SUPPRESS)
        found, unknown = parser.parse_known_args([_dashed(word) for word in argv])
        words = vars(found)
        asked = {words.pop(name, False) and name for name in ("help", "help_all")} - {False}
        if unknown:
            parser.error(self._unknown(unknown, options))
        typed = {name: _value(options[name], text) for name, text in words.items()}
        if asked:
            parts = defaults(typed) if defaults else self.parts
            print(self.help(options_of(parts), everything="help_all" in asked))
            raise SystemExit(0)
        return typed

    def _unknown(self, words: Sequence[str], options: Mapping[str, Option]) -> str:
        word = next((word for word in words if word.startswith("--")), words[0])
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            return f"{flag} belongs to no option of {self.prog}. See --help."
        flags = [option.flag for option in options.values()]
        if flag.rpartition(".")[2].removeprefix("--").startswith("no-"):
            flags = [option.no_flag for option in options.values() if option.kind is bool]
        ends = [f for f in flags if f.rpartition(".")[2] == flag.rpartition(".")[2].strip("-")]
        bare = {f.removeprefix("--"): f for f in flags}  # dashes make any two words alike
        alike = difflib.get_close_matches(flag.removeprefix("--"), bare, 1)
        near = ends or [bare[name] for name in alike]
        hint = f"Did you mean {' or '.join(near)}?" if near else "See --help-all."
        return f"{flag} is no option of {self.prog}. {hint}"

    def parser(self, options: Iterable[Option], *, choices: bool = False) -> _Parser:
        """Argparse's parser of some options; what was not typed leaves no trace.

        choices: values are compared with those of the field's type, as completion asks.
        """
        parser = _Parser(prog=self.prog, allow_abbrev=False, add_help=False)
        for option in options:
            for flags, more in self._arguments(option):
                if choices and get_origin(option.kind) is Literal:
                    more["choices"] = [str(choice) for choice in get_args(option.kind)]
                parser.add_argument(*flags, default=argparse.SUPPRESS, **more)
        return parser

    def _arguments(self, option: Option) -> list[tuple[list[str], dict[str, Any]]]:
        if option.name in self.positional:
            return [([option.name], {"nargs": "?"})]
        more: dict[str, Any] = {"dest": option.name}
        if option.kind is bool:
            on, off = more | {"action": "store_true"}, more | {"action": "store_false"}
            return [([option.flag], on), ([option.no_flag], off)]
        if get_origin(option.kind) is tuple:
            more["nargs"] = "*" if option.default == () else "+"
        return [([option.flag], more)]

    def help(self, options: Mapping[str, Option], *, everything: bool) -> str:
        """The text of --help, or of --help-all."""
        width = min(shutil.get_terminal_size().columns, 100) - 2
        lines = [f"usage: {self.prog} " + " ".join(n.upper() for n in self.positional)]
        lines[0] = f"{lines[0].rstrip()} [options]"
        lines += ["", *textwrap.wrap(self.about, width)]
        groups = {title: list(names) for title, names in self.short.items()}
        if everything:
            groups = {}
            for name in options:
                groups.setdefault(name.rpartition(".")[0] or "options", []).append(name)
        for title, names in groups.items():
            lines += ["", f"{title}:"]
            for name in names:
                lines += _option_lines(options[name], self.positional, width, everything)
        lines += ["", "  --help-all                every option"] if not everything else []
        return "\n".join([*lines, *([f"\n{self.epilog}"] if self.epilog else [])])

    def line(self, typed: Typed, **others: Any) -> str:
        """The command with these options, for a shell; None leaves an option out."""
        words = [self.prog]
        for name, value in {**typed, **others}.items():
            option = options_of(self.parts)[name]
            if isinstance(value, bool):
                words.append(option.flag if value else option.no_flag)
            elif value is not None:
                several = value if isinstance(value, list | tuple) else [value]
                flag = [] if name in self.positional else [option.flag]
                words += [*flag, *(shlex.quote(as_typed(one)) for one in several)]
        return " ".join(words)


def _option_lines(
    option: Option, positional: Sequence[str], width: int, everything: bool
) -> list[str]:
    """Its flag, what it takes, its meaning and default, wrapped."""
    takes = {int: "N", float: "X", bool: ""}.get(option.kind, "...")
    flag = option.flag
    if get_origin(option.kind) is Literal:
        takes = "|".join(map(str, get_args(option.kind)))
    elif get_origin(option.kind) is tuple:
        takes = {int: "N ...", float: "X ...", float | str: "X ..."}.get(
            get_args(option.kind)[0], "... ..."
        )
    if option.kind is bool and option.default is True:
        flag = f"{flag}, {option.no_flag}" if everything else option.no_flag
    if option.name in positional:
        flag, takes = option.name.upper(), ""
    usual = " (on)" if option.kind is bool and option.default else ""
    bounds = f"; {option.bounds}" if everything and option.bounds else ""
    if option.kind is not bool and option.default not in ("", None, ()):
        usual = f" ({as_typed(option.default)}{bounds})"
    head = f"  {flag} {takes}".rstrip()
    if everything:
        body = textwrap.wrap(option.help + usual, width - 28) or [""]
    else:  # the first sentence, or all where it explains one choice after another
        lists = option.help.split(" ")[0].endswith(":")
        text = option.help if lists else option.help.partition(". ")[0].rstrip(".")
        body = textwrap.wrap(text + usual, width - 28)
    if len(head) > 26:
        return [head, *(" " * 28 + line for line in body)]
    return [f"{head:<28}{body[0]}", *(" " * 28 + line for line in body[1:])]


def _dashed(word: str) -> str:
    """Names of options take _ for -; values stay as they are."""
    if not word.startswith("--"):
        return word
    name, mark, value = word.partition("=")
    return name.replace("_", "-") + mark + value


def _value(option: Option, text: Any) -> Any:
    """What the words of an option mean; ValueError names it and them."""
    kind, args = option.kind, get_args(option.kind)
    if isinstance(text, bool):
        return text
    try:
        if isinstance(text, list):
            return tuple(_plain(args[0], word) for word in text)
        return None if text in ("none", "None") and kind in (int, float) else _plain(kind, text)
    except ValueError:
        got = " ".join(text) if isinstance(text, list) else text
        raise ValueError(f"{option.flag} takes {in_words(kind)}, got {clip(got)!r}.") from None


def _plain(kind: Any, word: str) -> Any:
    kind = type(get_args(kind)[0]) if get_origin(kind) is Literal else kind
    if get_origin(kind) in (Union, UnionType):  # a number, or words
        with contextlib.suppress(ValueError):
            return _plain(get_args(kind)[0], word)
        return word
    return kind(word) if kind in (int, float) else word


def main_of(body: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
    """The main function of a command: its words, its errors, its exit status.

    The one place that reads the process's own command line.
    """

    @functools.wraps(body)
    def main(argv: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if argv is None else argv
        with on_signal(interrupt):
            try:
                refuse_typed_passwords(words)
                return body(words) or 0
            except BrokenPipeError:  # | head
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            except KeyboardInterrupt as stop:
                print("\nstopped: the same command goes on from what is kept", file=sys.stderr)
                return exit_status(getattr(stop, "number", signal.SIGINT))
            except (ValueError, RuntimeError, OSError) as error:
                print(clip(f"error: {error}", LONGEST), file=sys.stderr)
                return 1

    return main
