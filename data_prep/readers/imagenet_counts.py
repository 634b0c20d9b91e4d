"""How many training images each class of ImageNet-LT has: 115,846, from 1,280 down to 5.

Liu et al., "Large-Scale Long-Tailed Recognition in an Open World" (2019). Counts are facts;
they are what a user's copy of the list is checked against, and the shape of synthetic sets.
"""

import json
from pathlib import Path

FILE = Path(__file__).parent / "counts" / "imagenet_lt.json"


def imagenet_lt_counts() -> dict[str, int]:
    """WordNet id -> number of training images, in the order of the labels (sorted ids)."""
    counts: dict[str, int] = json.loads(FILE.read_text(encoding="utf-8"))
    return counts
