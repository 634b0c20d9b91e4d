"""What a data set of the user's own is called: the folder below --out, and --dataset."""

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
PLACES = frozenset({"train", "val", "test", "images", "data"})
"""Names of folders that say nothing: the folder above names the data set."""


def own_name(
    given: str | None, source: str | None, kind: str, *, long_tail: bool, known: Collection[str]
) -> str:
    """The option --name, or one made out of --source (``kind`` where there is none).

    A name of ``known``, the published data sets, must be asked for by --name: presets and
    figures of that name are about something else.
    """
    if given is not None:
        name = given.replace("-", "_")
        if not NAME.fullmatch(name):
            raise ValueError(
                f"--name ({given}) must be 1 to 64 of a-z, 0-9, - and _, the first a letter "
                f"or a digit. Try --name {_canonical(given) or 'mine'}."
            )
        return name
    name = _canonical(_last_part(source)) if source is not None else kind
    if not name:
        raise ValueError(f"--source ({source}) gives no name. Add --name, such as --name mine.")
    if long_tail and not name.endswith("_lt"):
        name += "_lt"
    if name in known:
        raise ValueError(
            f"--source ({source}) would be named {name}, which is a published data set. Choose "
            f"another --name, or insist with --name {name}."
        )
    return name


def _last_part(source: str) -> str:
    path = Path(source).expanduser().resolve()
    if path.suffix.lower() in (".csv", ".parquet"):
        path = path.with_suffix("")
    return path.parent.name if path.name.lower() in PLACES else path.name


def _canonical(text: str) -> str:
    """Lower-case ASCII letters and digits; accents go, everything else becomes _."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60].rstrip("_")
