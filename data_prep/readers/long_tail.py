"""The long tails of the literature, and the images that they keep.

The exponential profile is that of Cui et al., "Class-Balanced Loss Based on Effective Number of
Samples" (CVPR 2019); the step profile that of Buda et al., "A systematic study of the class
imbalance problem" (2018), as Cao et al. (LDAM-DRW, NeurIPS 2019) use it. The subset is drawn as
LDAM-DRW and those after it do. K = number of classes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.checks import check_value
from data_prep.options import Imbalance, Options, Profile
from data_prep.source import Source, Split

IMBALANCE = 0.01
"""Default of --imbalance: the smallest class over the largest."""
NAMES = {"exp": "exponential", "step": "step"}
UNBALANCED = 2.0
"""Largest class over smallest from which on a source no longer counts as balanced."""


def long_tail_counts(
    largest: int,
    num_classes: int,
    imbalance: float,
    at_least: int = 0,
    *,
    profile: Profile = "exp",
    option: str = "--imbalance",
) -> tuple[int, ...]:
    """How many images each class keeps, (K,); class 0 keeps the ``largest`` number.

    exp: class c keeps int(largest * imbalance ** (c / (K - 1))). step: the first K // 2 classes
    keep ``largest``, the others int(largest * imbalance); with an odd K the middle class is one
    of the small ones. ``option`` is what errors call the imbalance.
    """
    if num_classes < 2:
        raise ValueError(f"{option} ({imbalance}) needs at least 2 classes, not {num_classes}")
    check_value(option, imbalance, Imbalance)
    if profile == "step":
        shares = [imbalance if c >= num_classes // 2 else 1.0 for c in range(num_classes)]
    else:
        shares = [imbalance ** (c / (num_classes - 1)) for c in range(num_classes)]
    counts = tuple(max(at_least, int(largest * share)) for share in shares)
    if min(counts) < 1:
        raise ValueError(
            f"{option} ({imbalance}) leaves class {counts.index(0)} without an image. "
            f"Try {option} {1.01 / largest:.4f}."
        )
    return counts


def long_tail_rows(
    labels: NDArray[np.int64], counts: Sequence[int], seed: int
) -> NDArray[np.int64]:
    """Rows of the images kept, class by class: the first n of each class's shuffled rows.

    One generator serves all classes in order, so seed 0 gives the images that
    ``np.random.seed(0)`` and ``np.random.shuffle`` give in the literature's code.
    """
    generator = np.random.RandomState(seed)
    kept = []
    for c, n in enumerate(counts):
        rows = np.flatnonzero(labels == c)
        if len(rows) < n:
            raise ValueError(f"class {c} has {len(rows)} images, fewer than the {n} to keep")
        generator.shuffle(rows)
        kept.append(rows[:n])
    return np.concatenate(kept)


def cut_tail(
    split: Split, largest: int, num_classes: int, options: Options, at_least: int = 0
) -> tuple[Split, str]:
    """The part of a split that --long-tail or --imbalance keeps, a clause of ``Source.made``.

    No data set takes both options.
    """
    option, imbalance = "--long-tail", options.long_tail
    if imbalance is None:
        option = "--imbalance"
        imbalance = IMBALANCE if options.imbalance is None else options.imbalance
    profile = options.profile or "exp"
    counts = long_tail_counts(
        largest, num_classes, imbalance, at_least, profile=profile, option=option
    )
    rows = long_tail_rows(split.labels, counts, options.seed)
    return split.take(rows), f"{NAMES[profile]} long tail {imbalance} from {largest}"


def with_tail(source: Source, options: Options) -> Source:
    """The source as it is, or with a long tail by --long-tail in its training split.

    The largest class then keeps as many images as every class has; other splits stay.
    ValueError if the source has a long tail already: another one in it would mean nothing.
    """
    long_tail = options.long_tail
    if long_tail is None and options.profile is not None:
        raise ValueError(
            f"--profile ({options.profile}) is the profile of --long-tail, which is missing. "
            "Add --long-tail 0.01, or leave it out."
        )
    if long_tail is None:
        return source
    train = source.splits["train"]
    k = len(source.class_names)
    per_class = np.bincount(train.labels, minlength=k)
    smallest, largest = int(per_class.min()), int(per_class.max())
    rarest = source.class_names[int(per_class.argmin())]
    if largest > UNBALANCED * smallest:
        raise ValueError(
            f"--long-tail ({long_tail}) needs a balanced source, but its classes have from "
            f"{smallest} ({rarest!r}) to {largest} images. "
            "Leave it out: the source is long-tailed as it is."
        )
    train, tail = cut_tail(train, smallest, k, options)
    notes = source.notes
    if smallest < largest:
        notes += (
            f"the classes have {smallest} to {largest} images; the long tail starts from the "
            f"{smallest} that every class has",
        )
    return replace(
        source,
        splits=source.splits | {"train": train},
        made=f"{source.made}, {tail}, seed {options.seed}",
        notes=notes,
    )
