"""Tars that people already have: which ones an option names, and what is in a whole one."""

import os
import re
from collections import Counter
from glob import glob
from itertools import islice
from pathlib import Path

from cbdm_scale.storage.wording import clip, shorten
from data_prep.readers.copies import is_remote
from data_prep.tars import Member, has_bytes, read_range, walk_tar

BLOCK = 512
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
SPLIT = re.compile(r"(?<![a-z])(train|test|val)(?:ing|id|idation)?(?![a-z])")
"""What names of tars call a split."""
MOST = 1_000_000
"""Names that an option may stand for."""


def expand_braces(word: str, option: str) -> list[str]:
    """Every {000..123} and {x,y,z} written out as a shell does, the last one running fastest.

    ValueError for braces that do not close or are no choice, and for more than ``MOST``.
    """
    from braceexpand import braceexpand

    too_many = f"{option} ({word}) stands for more than {MOST:,} shards"
    for bounds in RANGE.findall(word):  # before they are written out
        first, last = (int(bound) if len(bound) < 20 else MOST for bound in bounds)
        if abs(last - first) >= MOST:
            raise ValueError(too_many)
    try:
        words = list(islice(braceexpand(word, escape=False), MOST + 1))
    except ValueError:
        raise ValueError(f"{option} ({word}) has braces that do not close") from None
    if len(words) > MOST:
        raise ValueError(too_many)
    if re.search(r"[{}]", words[0]):
        raise ValueError(
            f"{option} ({word}): what is in its braces is neither a range such as "
            "{000..123} nor a choice such as {train,val}"
        )
    return words


def find_tars(source: str, option: str) -> list[str]:
    """The tars that an option stands for: braces, a local folder, a local pattern with *."""
    tars: list[str] = []
    for word in expand_braces(source, option):
        word = word.removeprefix("file://")
        local = Path(word).expanduser()
        if is_remote(word):
            tars.append(word)
        elif local.is_dir():
            tars += (found := sorted(map(str, local.glob("*.tar"))))
            _check_one_split(found, local, option)
        elif local.exists():
            tars.append(str(local))
        else:
            tars += sorted(glob(str(local))) or [str(local)]
    twice = [tar for tar, count in Counter(tars).items() if count > 1]
    lost = [tar for tar in tars if not is_remote(tar) and not Path(tar).is_file()]
    if not tars or twice or lost:
        why = f"names {twice[0]} twice" if twice else "holds no .tar"
        why = f"{len(lost):,} tars are not there, the first is {lost[0]}" if lost else why
        raise ValueError(
            f"{option} ({source}): {why}. Give a tar, a folder of tars, or names with braces "
            "such as 'URL-{000000..000123}.tar' (in quotes)."
        )
    return tars


def _check_one_split(tars: list[str], folder: Path, option: str) -> None:
    """ValueError if the names of a folder's tars say that they are of several splits."""
    found = {Path(tar).stem: SPLIT.findall(Path(tar).stem.lower()) for tar in tars}
    words = sorted({word for words in found.values() for word in words})
    if "train" in words and len(words) > 1:
        raise ValueError(
            f"{option} ({folder}) holds tars of several splits by their names: "
            f"{shorten(words)}. Name those to train on, such as '{folder}/*train*.tar' (in "
            "quotes), and others with --eval-source."
        )


def list_members(path: str | Path, name: str) -> list[Member]:
    """All regular files in the order of the tar; ``name`` is what errors call it.

    ValueError says why a tar is not whole: its end must be the zeros that close it.
    """
    magic = read_range(path, 0, 2)
    if magic in COMPRESSED:
        raise ValueError(
            f"{name} is compressed ({COMPRESSED[magic]}): its images cannot be read by "
            "their place. Unpack it to a plain .tar."
        )
    members, end, error = walk_tar(path)
    if error:
        raise ValueError(f"{name} is damaged or cut short: {clip(error)}")
    size = os.path.getsize(path)
    if size < end + BLOCK:
        raise ValueError(
            f"{name} is cut short: it stops at byte {size:,} without the zeros that close a tar"
        )
    if any(read_range(path, end, BLOCK)):
        raise ValueError(
            f"{name} has a damaged header at byte {end:,}: what follows cannot be read"
        )
    if has_bytes(path, end):
        raise ValueError(
            f"{name} goes on behind its end at byte {end:,}, which tar readers do not see. "
            "Was it joined out of several? Give them one by one."
        )
    return members
