"""Distances between real images and damaged ones: does each number move as its paper says?

    python -m benchmarks.sanity --train SET [--test SET] --cache DIR [--number 5000]

SET is an .npz in the layout of ADM, a folder of images, or DATASET:SPLIT. The sides are the
first images of each class, equally many a class; without --test every other image of --train.
Features are kept in DIR, so that another metric or another damage needs no network. Damages:
blurred (Gaussian, sigma 1 pixel), one class missing, five classes only, half of each class (its
features' nearer half to one of two centres: modes are missing although every class is there),
and copies of half of the training images. FLD is fitted on this half, and held-out images are
the other one. The second table is of real images against real images, by their number: what a
number makes of few images when nothing is wrong.
"""

from collections.abc import Sequence
from math import isnan, nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.timing import Bench, arguments, markdown
from cbdm_scale.metrics.extract import FeatureSet, extract
from cbdm_scale.metrics.extractors import find_extractor
from cbdm_scale.metrics.fid import fid
from cbdm_scale.metrics.fld import LikelihoodOf
from cbdm_scale.metrics.kid import kid
from cbdm_scale.metrics.prd import prd
from cbdm_scale.metrics.precision_recall import manifold_scores
from cbdm_scale.metrics.sliced_wasserstein import sliced_wasserstein
from cbdm_scale.metrics.sources import Images, Subset, open_images

SIGMA = 1.0


class Blurred(Subset):
    """Some images after a Gaussian blur, quantised again."""

    @property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}-blurred-{SIGMA:g}"

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        pixels = super().read(numbers).astype(np.float32)
        return gaussian_filter(pixels, (0, 0, SIGMA, SIGMA)).round().astype(np.uint8)


def balanced(images: Images, number: int) -> Subset:
    """The first images of each class, equally many, in their order."""
    labels = images.labels
    classes = np.unique(labels)
    each = number // len(classes)
    rows = [np.flatnonzero(labels == c)[:each] for c in classes]
    if min(map(len, rows)) < each:
        raise ValueError(f"--number {number} needs {each} images a class. Take a smaller one.")
    return Subset(images, tuple(np.sort(np.concatenate(rows)).tolist()))


def every_other(images: Images, first: int) -> Subset:
    """Every other image of each class, from the first or the second on."""
    labels = images.labels
    rows = [np.flatnonzero(labels == c)[first::2] for c in np.unique(labels)]
    return Subset(images, tuple(np.sort(np.concatenate(rows)).tolist()))


def halves_of_classes(pool: Tensor, labels: Tensor) -> Tensor:
    """Rows (n,) of one of the two clusters of each class, filled up to half of the class."""
    from sklearn.cluster import KMeans

    rows = []
    for c in labels.unique():
        members = torch.where(labels == c)[0]
        distances = KMeans(2, n_init=4, random_state=0).fit_transform(pool[members].numpy())
        leaning = torch.from_numpy(distances[:, 0] - distances[:, 1])
        rows.append(members[leaning.argsort()[: len(members) // 2]])
    return torch.cat(rows).sort().values


def versions(test: FeatureSet, blurred: FeatureSet, seed: int = 0) -> dict[str, Tensor]:
    """Name -> features, all of half as many images as there are in ``test``."""
    pool, labels = test.pool, test.labels
    half = len(pool) // 2
    generator = torch.Generator().manual_seed(seed)

    def some(keep: Tensor) -> Tensor:
        rows = torch.where(keep)[0]
        return pool[rows[torch.randperm(len(rows), generator=generator)[:half]]]

    everything = torch.ones(len(pool), dtype=torch.bool)
    return {
        "half of them": some(everything),
        "blurred": blurred.pool,
        "one class missing": some(labels != labels[0]),
        "five classes": some(labels < 5),
        "half of each class": pool[halves_of_classes(pool, labels)][:half],
    }


SIZES = 20, 50, 100, 200, 400
DRAWS = 20


def distances(real: Tensor, other: Tensor, likelihood: LikelihoodOf | None) -> dict[str, float]:
    """By the names of the columns; FLD is nan where it says nothing."""
    return {
        "FID": fid(real, other),
        "KID x 1000": 1000 * kid(real, other),
        "sliced W": sliced_wasserstein(real, other),
        "FLD": likelihood(other)[0] if likelihood else nan,
    }


def scores(
    real: Tensor, other: Tensor, num_classes: int, likelihood: LikelihoodOf | None
) -> dict[str, float]:
    """Those and the further columns of (real, other)."""
    manifold, curve = manifold_scores(real, other), prd(real, other, num_classes)
    names = "precision", "recall", "density", "coverage"
    shares = {name: getattr(manifold, name) for name in names}
    areas = {"F_8": curve.f8, "F_1/8": curve.f_eighth}
    return distances(real, other, likelihood) | shares | areas


def by_number(real: Tensor, test: Tensor, likelihood: LikelihoodOf) -> str:
    """Markdown: a row a number of real images, mean and standard deviation over draws."""
    rng, rows = torch.Generator().manual_seed(2), []
    for n in (n for n in SIZES if n <= len(test) // 2):
        draws = [test[torch.randperm(len(test), generator=rng)[:n]] for _ in range(DRAWS)]
        named = [distances(real, x, likelihood) for x in draws]
        found = torch.tensor([list(one.values()) for one in named])
        pairs = zip(found.mean(0).tolist(), found.std(0).tolist(), strict=True)
        rows.append([f"{n:,}", *(f"{mean:.3g} ± {std:.2g}" for mean, std in pairs)])
    return markdown(["images of test", *named[0]], rows)


def main() -> None:
    args = arguments(
        __doc__,
        repetitions=0,
        train=str,
        test="",
        cache=str,
        number=5000,
        extractor="inception",
        weights="",
        resize="bilinear",
    )
    recipe = find_extractor(args.extractor, "", weights=args.weights, resize=args.resize)
    about = f"{args.extractor} {recipe.fingerprint}, {args.resize}"
    bench = Bench(args, extractor=about, real="train")
    sets = {s: open_images(getattr(args, s)) for s in ("test", "train") if getattr(args, s)}
    if not args.test:
        sets = {"test": every_other(sets["train"], 1), "train": every_other(sets["train"], 0)}
    sides = {s: balanced(images, args.number) for s, images in sets.items()}
    some = balanced(sides["test"], args.number // 2)
    wanted = sides["test"], sides["train"], Blurred(some.images, some.numbers)
    test, train, blurred = (extract(one, recipe, args.cache, chunk_size=25) for one in wanted)
    num_classes = len(test.labels.unique())
    order = torch.randperm(len(train.pool), generator=torch.Generator().manual_seed(1))
    first, second = train.pool[order].chunk(2)
    pairs = {"train, the other half": (first, second), "test": (train.pool, test.pool)}
    for name, other in versions(test, blurred).items():
        pairs[f"test, {name}"] = train.pool, other
    pairs["copies of half of train"] = train.pool, first
    likelihood = LikelihoodOf(first, second)
    rows = []
    for name, (real, other) in pairs.items():
        explains = None if other is second else likelihood
        found = scores(real, other, num_classes, explains)
        values = ["" if isnan(value) else f"{value:.3g}" for value in found.values()]
        rows.append([name, f"{len(real):,}", f"{len(other):,}", *values])
        bench.keep({name: values})
    fewer = by_number(train.pool, test.pool, likelihood)
    bench.finish(markdown(["other side", "real", "other", *found], rows), fewer)


if __name__ == "__main__":
    main()
