"""Options that are paths: absolute before another process, on another node, reads them.

    root: Folder = "~/shards"
    extractor_weights: File = ""

Workers have a working directory of their own. That of a job (``ray job submit --working-dir``)
is a copy that Ray deletes: a relative path that something is to outlast is refused there.
"""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar

from cbdm_scale.storage.checks import field_types
from cbdm_scale.storage.remote import refuse_password, split_scheme
from cbdm_scale.storage.wording import clip

JOB_COPY = "working_dir_files"
"""Folder of Ray's session that holds the copies which jobs work in."""
SQLITE = "sqlite:///"
Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class PathOption:
    """In the type of an option: a path, a URL, a word with a path in it, or several."""

    lasts: bool
    """Whether other nodes or later commands look there too."""

    after: str = ""
    """Only what follows this is a path, as in classifier:PATH."""

    word: str = ""
    """Pattern of the values that are none: a name, or a number."""

    variable: str = ""
    """Of the environment, which says it where the option is empty."""

    hint: str = ""

    def __contains__(self, value: Any) -> bool:
        return True


Folder = Annotated[str, PathOption(lasts=True)]
"""Where something is kept."""
File = Annotated[str, PathOption(lasts=False)]
"""Where something is read from, by workers too."""
MLFLOW = "models:/", "runs:/"
"""How the names of MLflow's models begin."""


def absolute_paths(options: Options) -> Options:
    """A dataclass of options, and those in it, with absolute paths.

    ValueError in a job's copy names every path there that is to last, those of the environment
    too.
    """
    lost: dict[str, str] = {}
    found = _absolute_in(options, "", lost)
    _refuse(lost)
    return found


def absolute_uri(name: str, uri: str) -> str:
    """MLflow's address with the path of a database absolute; ``name``: who says it.

    A server's stays as it is: in the environment it may carry a password.
    """
    lost: dict[str, str] = {}
    found = _absolute_uri(name, uri, lost)
    _refuse(lost)
    return found


def _absolute_uri(name: str, uri: str, lost: dict[str, str]) -> str:
    is_database = uri.startswith(SQLITE)
    return _absolute(name, uri, PathOption(lasts=True), lost) if is_database else uri


def _refuse(lost: Mapping[str, str]) -> None:
    if lost:
        raise ValueError(
            f"{', '.join(map(clip, lost))}: relative paths lie in this job's copy of its "
            "folder, which Ray deletes. Give absolute ones that last: "
            f"{' '.join(lost.values())}"
        )


def _absolute_in(options: Options, prefix: str, lost: dict[str, str]) -> Options:
    owner: Any = type(options)
    changed: dict[str, Any] = {}
    for field in fields(options):  # type: ignore[arg-type]
        value, name = getattr(options, field.name), prefix + field.name
        kind = field_types(owner)[field.name]
        if is_dataclass(value):
            changed[field.name] = _absolute_in(value, f"{name}.", lost)
        for mark in getattr(kind, "__metadata__", ()):
            if isinstance(mark, PathOption) and isinstance(value, tuple):
                changed[field.name] = tuple(_absolute(name, v, mark, lost) for v in value)
            elif isinstance(mark, PathOption) and value:
                changed[field.name] = _absolute(name, value, mark, lost)
            elif isinstance(mark, PathOption) and mark.variable:
                _absolute_uri(mark.variable, os.environ.get(mark.variable, ""), lost)
    moved = {name: new for name, new in changed.items() if new != getattr(options, name)}
    return replace(options, **moved) if moved else options  # type: ignore[type-var]


def _absolute(name: str, value: str, path_option: PathOption, lost: dict[str, str]) -> str:
    """The value with an absolute path; one that a job would lose goes to ``lost``.

    A file that is there came with the job: it is read, and nothing is kept in it.
    ``lost``: OPTION (VALUE) -> what to type instead.
    """
    before = SQLITE if value.startswith(SQLITE) else path_option.after
    path = value.removeprefix(before)
    if not value.startswith(before) or not path or path.startswith(":memory:"):
        return value
    refuse_password(name, value)
    if split_scheme(path)[0] or path.startswith(MLFLOW) or re.fullmatch(path_option.word, path):
        return value
    path = os.path.expanduser(path)
    lasts = path_option.lasts and (before or not os.path.isfile(path))
    if lasts and not os.path.isabs(path) and JOB_COPY in os.getcwd().split(os.sep):
        flag = f"--{name.replace('_', '-')} " if name.islower() else f"{name}="
        lost[f"{name} ({value})"] = f"{flag}{shlex.quote(f'{before}/SHARED/{path}')}"
    return before + os.path.abspath(path)
