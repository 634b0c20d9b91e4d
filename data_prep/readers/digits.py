"""digits-lt: scikit-learn's real handwritten digits, 8x8, long-tailed. Needs no download."""

import numpy as np

from data_prep.options import Profile
from data_prep.readers.long_tail import describe_tail, long_tail_counts, long_tail_rows
from data_prep.source import Source, Split

LARGEST = 174
"""Images of the rarest digit (8): what every class has in the balanced set at least."""
SMALLEST = 2


def read_digits_lt(imbalance: float = 0.01, seed: int = 0, profile: Profile = "exp") -> Source:
    """Train: 174, 104, 62, 37, 22, 13, 8, 4, 2, 2 images (by default); eval: all 1,797."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]  # (N, 8, 8, 1)
    everything = Split.of_arrays(grey, digits.target, "digits")
    counts = long_tail_counts(LARGEST, 10, imbalance, at_least=SMALLEST, profile=profile)
    return Source(
        name="digits_lt",
        class_names=tuple(map(str, range(10))),
        image_size=8,
        channels=1,
        splits={
            "train": everything.take(long_tail_rows(everything.labels, counts, seed)),
            "eval": everything,
        },
        made=f"scikit-learn digits, {describe_tail(profile, imbalance, LARGEST)}, "
        f"at least {SMALLEST}, seed {seed}",
        mirrors=False,
    )
