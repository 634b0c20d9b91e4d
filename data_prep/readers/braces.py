"""Many shards in one word, as WebDataset users write them: URL-{000000..000123}.tar."""

import re
from collections.abc import Iterator, Sequence

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"([0-9]{1,12})\.\.([0-9]{1,12})")
MOST = 1_000_000


def expand_braces(word: str, option: str) -> list[str]:
    """Every {a..b} and {x,y,z} written out, the last one running fastest.

    Numbers keep the leading zeros of their bounds. ValueError for other braces.
    """
    if re.search(r"[{}]", BRACES.sub("", word)):
        raise ValueError(f"{option} ({word}) has braces that do not close, or inside others")
    total = 1
    for match in BRACES.finditer(word):
        total *= len(_choices(match[1], option))
        if total > MOST:
            raise ValueError(f"{option} ({word}) stands for more than {MOST:,} shards")
    return list(_expand(word, option))


def _expand(word: str, option: str) -> Iterator[str]:
    match = BRACES.search(word)
    if match is None:
        yield word
        return
    for choice in _choices(match[1], option):
        for rest in _expand(word[match.end() :], option):
            yield word[: match.start()] + choice + rest


def _choices(inside: str, option: str) -> Sequence[str]:
    """What stands between two braces."""
    if "," in inside:
        return inside.split(",")
    bounds = RANGE.fullmatch(inside)
    if bounds is None or int(bounds[1]) > int(bounds[2]):
        raise ValueError(
            f"{option}: {{{inside}}} is neither a range such as {{000..123}} nor a choice such "
            "as {train,val}"
        )
    first, last = int(bounds[1]), int(bounds[2])
    if last - first >= MOST:
        raise ValueError(f"{option}: {{{inside}}} stands for more than {MOST:,} shards")
    padded = any(bound.startswith("0") and len(bound) > 1 for bound in bounds.groups())
    width = max(map(len, bounds.groups())) if padded else 0
    return [f"{n:0{width}d}" for n in range(first, last + 1)]
