"""Names of samples: from file names as people have them to keys that every tar reader takes.

WebDataset cuts a member's name at the first dot of its last part, and a tar's path must not
lead out of the folder it is unpacked to; so a key has neither dots nor slashes.
"""

import re
import unicodedata
from collections.abc import Iterable

ODD = re.compile(r"[^A-Za-z0-9_-]+")
SUFFIX = re.compile(r"(?<=[^/.])\.[A-Za-z0-9]{1,5}$")
LONGEST = 80
"""Characters of a key: with suffix and shard name well below a tar header's 100."""


def make_keys(names: Iterable[str]) -> list[str]:
    """One key a name, in order: unique, of A-Z a-z 0-9 _ -, at most LONGEST characters.

    A suffix goes, accents go, every other run of characters becomes one "-". Names that come
    out the same, other names' letter case aside, get "-1", "-2" ... in the order of the names,
    so the same names always give the same keys.
    """
    keys: list[str] = []
    taken: set[str] = set()
    last: dict[str, int] = {}
    for name in names:
        stem = _plain(name)
        key, number = stem, last.get(stem.lower(), 0)
        while key.lower() in taken:
            number += 1
            tail = f"-{number}"
            key = stem[: LONGEST - len(tail)] + tail
        last[stem.lower()] = number
        taken.add(key.lower())
        keys.append(key)
    return keys


def _plain(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", SUFFIX.sub("", name))
    kept = "".join(c for c in ascii_name if not unicodedata.combining(c))
    return ODD.sub("-", kept).strip("-")[-LONGEST:].strip("-") or "image"
