"""Options that are paths: absolute before another process, on another node, reads them.

    root: Folder = "~/shards"
    extractor_weights: File = ""

Workers have a working directory of their own. That of a job (``ray job submit --working-dir``)
is a copy that Ray deletes: a relative path that something is to outlast is refused there.
"""

import os
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar

from cbdm_scale.storage.checks import field_types
from cbdm_scale.storage.remote import refuse_password, split_scheme

JOB_COPY = "working_dir_files"
"""Folder of Ray's session that holds the copies which jobs work in."""
SQLITE = "sqlite:///"
Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Place:
    """In the type of an option: a path, a URL, or a word with a path in it."""

    lasts: bool
    """Whether other nodes or later commands look there too."""

    after: str = ""
    """Only what follows this is a path, as in classifier:PATH."""

    hint: str = ""

    def __contains__(self, value: Any) -> bool:
        return True


Folder = Annotated[str, Place(lasts=True)]
"""Where something is kept."""
File = Annotated[str, Place(lasts=False)]
"""Where something is read from, by workers too."""


def absolute_places(options: Options, prefix: str = "") -> Options:
    """A dataclass of options, and those in it, with absolute paths; ValueError in a job's copy.

    ``prefix`` stands before their names where they are typed.
    """
    owner: Any = type(options)
    changed: dict[str, Any] = {}
    for field in fields(options):  # type: ignore[arg-type]
        value, name = getattr(options, field.name), prefix + field.name
        kind = field_types(owner)[field.name]
        if is_dataclass(value):
            changed[field.name] = absolute_places(value, f"{name}.")
        for mark in getattr(kind, "__metadata__", ()):
            if isinstance(mark, Place) and value:
                changed[field.name] = _absolute(name, value, mark)
    moved = {name: new for name, new in changed.items() if new != getattr(options, name)}
    return replace(options, **moved) if moved else options  # type: ignore[type-var]


def absolute_uri(name: str, uri: str) -> str:
    """MLflow's address with the path of a database absolute; ``name``: who says it.

    A server's stays as it is: in the environment it may carry a password.
    """
    return _absolute(name, uri, Place(lasts=True)) if uri.startswith(SQLITE) else uri


def _absolute(name: str, value: str, place: Place) -> str:
    before = SQLITE if value.startswith(SQLITE) else place.after
    path = value.removeprefix(before)
    if not value.startswith(before) or not path or path.startswith(":memory:"):
        return value
    refuse_password(name, value)
    if split_scheme(path)[0] or path.startswith("models:/"):
        return value
    path = os.path.expanduser(path)
    here = os.getcwd()
    if place.lasts and not os.path.isabs(path) and JOB_COPY in here.split(os.sep):
        flag = f"--{name.replace('_', '-')} " if name.islower() else f"{name}="
        raise ValueError(
            f"{name} ({value}) is relative, and this job works in a copy of its folder that "
            f"Ray deletes. Give an absolute path that lasts: {flag}{before}/SHARED/{path}"
        )
    return before + os.path.abspath(path)
