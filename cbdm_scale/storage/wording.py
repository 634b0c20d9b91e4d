"""The words of errors: short, however many names or how long a text somebody gives; commands.

An error names the option and the value first and the way out last, so both ends are kept.
"""

import shutil
from collections.abc import Sequence
from typing import Any

LONGEST = 1000
"""Characters of an error at most, whatever the input is."""
SHOWN = 5
"""Names in an error before it says how many more there are."""


def clip(text: object, most: int = 200) -> str:
    """A text; of one with more than ``most`` characters the start and the end."""
    whole, each = str(text), (most - 5) // 2
    return whole if len(whole) <= most else f"{whole[:each]} ... {whole[-each:]}"


def shorten(
    names: Sequence[Any], most: int = SHOWN, each: int = 60, between: str = ", "
) -> str:
    """The first ``most`` names, of ``each`` characters at most, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(clip(name, each) for name in names[:most]) + more


def prog_of(name: str) -> str:
    """How a command is started: by ``cbdm``, or by its module where that is not installed."""
    return f"{'cbdm' if shutil.which('cbdm') else 'python -m cbdm_scale'} {name}"
