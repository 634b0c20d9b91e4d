"""digits-lt: scikit-learn's real handwritten digits, 8x8, long-tailed. Needs no download."""

import numpy as np

from data_prep.options import Options
from data_prep.readers.long_tail import cut_tail
from data_prep.source import Source, Split

LARGEST = 174
"""Images of the rarest digit (8): what every class has in the balanced set at least."""
SMALLEST = 2


def read_digits_lt(name: str = "digits_lt", options: Options | None = None) -> Source:
    """Train: 174, 104, 62, 37, 22, 13, 8, 4, 2, 2 images (by default); eval: all 1,797."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]  # (N, 8, 8, 1)
    everything = Split.of_arrays(grey, digits.target, "digits")
    options = options or Options()
    train, tail = cut_tail(everything, LARGEST, 10, options, at_least=SMALLEST)
    return Source(
        name=name,
        class_names=tuple(map(str, range(10))),
        image_size=8,
        channels=1,
        splits={"train": train, "eval": everything},
        made=f"scikit-learn digits, {tail}, at least {SMALLEST}, seed {options.seed}",
        mirrors=False,
    )
