"""Images that a list names and the disk lacks: all of them in a file, and an error or not."""

import os
from collections.abc import Sequence

from data_prep.options import Options
from data_prep.writing.target import Target


def missing_file(out: str, name: str) -> tuple[Target, str]:
    """The folder --out, which may be a URL, and the file's name in it."""
    return Target(os.path.expanduser(out)), f"{name}.missing.txt"


def allow_missing(
    missing: Sequence[str],
    name: str,
    options: Options,
    what: str = "images that the lists name",
) -> int:
    """Name what is missing in a file, and give how many images may still turn out bad.

    ``missing`` are file names as the lists write them, each counted once. More than
    --allow-missing of them is a ValueError. A file of an earlier run goes when all are there.
    """
    allowed = options.allow_missing or 0
    unique = list(dict.fromkeys(missing))
    folder, file = missing_file(options.out, name)
    if not unique:
        folder.remove(file)
        return allowed
    folder.write(file, "".join(f"{line}\n" for line in unique).encode())
    if len(unique) > allowed:
        raise ValueError(
            f"--source ({options.source}) lacks {len(unique):,} {what}, "
            f"--allow-missing is {allowed}. {folder.path(file)} names them all, the first is "
            f"{unique[0]}. "
            f"Add them, or go on without them by --allow-missing {len(unique)}."
        )
    return allowed - len(unique)
