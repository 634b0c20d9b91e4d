"""The data sets below a root, or the one that a path or URL names."""

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.remote import split_scheme
from cbdm_scale.storage.wording import prog_of

OURS = {"dataset.json", "index.parquet", "shards.parquet", "train", "eval", "test"}
"""Files and folders one of which says that a folder is, or was to be, a data set."""


def find_sets(where: str) -> tuple[str, list[str]]:
    """(root, names) of ROOT or ROOT/NAME, unfinished data sets too; ValueError without any."""
    where = where.rstrip("/")
    if not split_scheme(where)[0]:
        from pathlib import Path

        where = str(Path(where).expanduser().resolve())
    root, _, name = where.rpartition("/")
    if _entries(where) & OURS:
        return root, [name]
    names = sorted(n for n in _entries(where) if not n.startswith("."))
    sets = [n for n in names if _entries(f"{where}/{n}") & OURS]
    if not sets:
        raise ValueError(
            f"{where} holds no data set, that is, no folder with a dataset.json. Give the "
            f"folder that was the --out of {prog_of('prepare')}, or one in it."
        )
    return where, sets


def _entries(url: str) -> set[str]:
    """Names directly in a folder; none where there is no folder."""
    return set(Storage(url, "ROOT").list())
