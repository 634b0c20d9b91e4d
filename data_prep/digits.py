"""digits-lt: scikit-learn's real handwritten digits, 8x8, long-tailed. Needs no download."""

import hashlib
from pathlib import Path

import numpy as np

from data_prep.long_tail import describe_tail, long_tail_counts, long_tail_rows
from data_prep.options import Profile
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


def prepare_digits(root: str, *, classifier: bool = True) -> None:
    """Make <root>/digits_lt if it is not there; several processes may do so at once.

    On one node they take turns, so that the work is done once; between nodes the first to
    finish wins. A root that is a URL is left alone: reading from it names the command.
    """
    from cbdm_scale.data.index import cache_folder, one_at_a_time
    from data_prep.options import Options
    from data_prep.prepare import prepare

    if "://" in str(root):
        return
    path = Path(root).expanduser().resolve()
    turn = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    with one_at_a_time(cache_folder() / f"prepare-{turn}"):
        options = Options(out=str(path), classifier=classifier, workers=0)
        prepare("digits-lt", options, only_if_missing=True)
