"""Resampling as part of the plan: classes by a target distribution, a class's images in turn.

Image g lies at position i = g - eN of epoch e = g // N; an epoch stays N planned images. Of
those, b = round(rN) are *balanced*, the ones with floor((i + 1) b / N) > floor(i b / N): any
window of n images holds n b / N of them to within one. Their classes are uniform; the classes
of the others have the probabilities ``class_probs(counts, power)``: RS of Section 4.1 is
power 0, SQRT-RS 1/2. From there on everything is counting:

- *Classes of an epoch.* Systematic rounding with an offset that runs through P values (in
  bit-reversed order, so evenly at any time) gives every class of an epoch its target, rounded
  up or down, N in all; P epochs give P times the target exactly.
- *Order of the classes.* A class with q images in an epoch has one in each q-th of it, moved
  by chance within half of that: a tail class comes evenly, not in clumps.
- *Images of a class.* Occurrence o of a class, counted since the run began, is in cycle o // m
  of its m images: each is used equally often to within one. A cycle plays one half of the
  class and then the other, each permuted anew, so that at least floor(m / 2) other images of
  the class stand between two uses of one.

Every number follows from (labels, seed, g): no worker, no history. Memory: the rows by class
and the rows of two epochs; data sets of more than ``MIX_ROWS`` images are refused.

Where the target changes on the way (``ChangingPlan``), each part of the run counts its epochs
from its own first image. The occurrences of a class are counted through, and a plain epoch that
was left amid goes on in its own order, so that at any image of the run each image of a class
has been used equally often to within one. Up to its first change a run is the one without.

Shapes: N = samples, K = classes that have images, P = ``PERIOD``, Q = images of one part.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cbdm_scale.data.exposure import Part
from cbdm_scale.data.index import Index
from cbdm_scale.data.plan import MIX_ROWS, Plan, Rows, SamplePlan, by_epoch
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.labels import class_probs

PERIOD_BITS = 16
PERIOD = 1 << PERIOD_BITS
"""Epochs after which the rounding begins again; targets are multiples of 1 / PERIOD."""
JITTER = 0.5
"""Share of its pitch within which an image is placed by chance."""
CHUNK = 1 << 18


def make_plan(index: Index, seed: int, parts: Sequence[Part]) -> Plan:
    """The plan of a run: every sample once an epoch, or resampled by class, or each in turn."""
    if len(parts) > 1:
        return ChangingPlan(index, seed, parts)
    if parts[0].is_plain:
        return SamplePlan(index.shard_sizes, seed)
    return ResampledPlan(index, seed, parts[0].power, parts[0].balanced_fraction)


def check_resampling(num_samples: int, parts: Sequence[Part]) -> None:
    """ValueError where a data set cannot be resampled as asked."""
    for part in parts:
        if not part.is_plain:
            _check_part(num_samples, part.power, part.balanced_fraction)


def _check_part(num_samples: int, power: float, balanced_fraction: float) -> None:
    if num_samples > MIX_ROWS:
        raise ValueError(
            f"data.resample_power ({power}) and data.balanced_fraction ({balanced_fraction}) "
            f"resample up to {MIX_ROWS:,} images, and the training split has {num_samples:,}: "
            "the order by class would not fit in bounded memory. Use --data.resample-power 1 "
            "--data.balanced-fraction 0, or make a data set of fewer images."
        )
    if balanced_fraction and not round(balanced_fraction * num_samples):
        raise ValueError(
            f"data.balanced_fraction ({balanced_fraction}) is less than one image in an epoch "
            f"of {num_samples}. Use 0, or at least {1 / num_samples:.2g}."
        )


class Shown(NamedTuple):
    """What came before a plan that goes on."""

    part: int
    """Number of the part that begins, from 1: its chance is its own."""

    used: Rows
    """Occurrences of each class, (K,)."""

    open_epoch: int = -1
    """The plain epoch that was left amid, which is that cycle of every class; -1 for none."""

    open_order: Rows | None = None
    """Position of each row in it, (N,)."""


class ResampledPlan:
    """A plan whose epochs follow a target distribution over the classes that have images."""

    num_streams = 1

    def __init__(
        self,
        index: Index,
        seed: int,
        power: float,
        balanced_fraction: float,
        shown: Shown | None = None,
    ):
        """``shown``: of a plan that goes on, whose images and epochs count from its begin."""
        self._recipe = (index, seed, power, balanced_fraction, shown)
        n = self.num_samples = index.num_samples
        _check_part(n, power, balanced_fraction)
        self.seed, self.sizes = seed, np.array([n])
        labels = np.asarray(index.labels[np.arange(n)])
        self.classes, self.class_of, self.counts = np.unique(
            labels, return_inverse=True, return_counts=True
        )  # (K,) labels, (N,) positions among them, (K,)
        k = len(self.classes)
        self.shown = shown or Shown(0, np.zeros(k, np.int64))
        self.part = f"{self.shown.part}/" if shown else ""
        self.first = np.cumsum(self.counts) - self.counts  # (K,), in ``members``
        self.members = np.lexsort((self._words("halves", np.arange(n)), self.class_of))  # (N,)
        self.num_balanced = round(balanced_fraction * n)
        rest = class_probs(torch.from_numpy(self.counts), power).numpy()
        target = rest * (n - self.num_balanced) + self.num_balanced / k
        self.ends = np.cumsum(_largest_remainder(target * PERIOD, n * PERIOD))  # (K,), in 1 / P
        self.phase = rng.permutation(seed, "resample/phase", k).numpy() / k  # (K,), in pitches
        self.offset_key = rng.make_key(seed, "resample/offset")[0] % PERIOD
        self._epoch_rows = lru_cache(maxsize=2)(self._plan_epoch)

    def __reduce__(self) -> tuple[Any, ...]:
        return ResampledPlan, self._recipe

    def rows(self, sample_ids: Rows) -> Rows:
        """Index rows of images: (n,) int64 numbers since the run began -> (n,) int64."""
        return by_epoch(sample_ids, self.num_samples, lambda e, i: self._epoch_rows(e)[i])

    def successors(self, sample_id: int) -> Iterator[int]:
        """Stand-ins of an unreadable sample: its class's other images, then what comes next.

        Another class stands in only where no image of the class can be read.
        """
        epoch, position = divmod(int(sample_id), self.num_samples)
        rows = self._epoch_rows(epoch)
        c = self.class_of[rows[position]]
        own = self.members[self.first[c] :][: self.counts[c]]
        place = int(np.flatnonzero(own == rows[position])[0])
        yield from np.roll(own, -place)[1:].tolist()
        after = np.roll(rows, -position)[1:]
        yield from after[self.class_of[after] != c].tolist()

    def shown_after(self, images: int) -> Shown:
        """What has come when ``images`` of this plan have."""
        epoch, rest = divmod(images, self.num_samples)
        used = self.shown.used + self.used(epoch)
        if rest:
            classes = self.class_of[self._epoch_rows(epoch)[:rest]]
            used = used + np.bincount(classes, minlength=len(self.counts))
        return self.shown._replace(part=self.shown.part + 1, used=used)

    def is_balanced(self, sample_ids: Rows) -> NDArray[np.bool_]:
        """Which images belong to the share with uniform classes: (n,) -> (n,)."""
        n, b = self.num_samples, self.num_balanced
        positions = np.asarray(sample_ids, np.int64) % n
        balanced: NDArray[np.bool_] = (positions + 1) * b // n > positions * b // n
        return balanced

    def quotas(self, epoch: int) -> Rows:
        """Images of each class in an epoch: (K,), the target rounded up or down, N in all."""
        reached = (self.ends + self._offsets(epoch % PERIOD, 1)[0]) // PERIOD
        return _steps(reached)

    def used(self, epoch: int) -> Rows:
        """Images of each class in all epochs of this plan before this one: (K,)."""
        periods, rest = divmod(epoch, PERIOD)
        offsets = np.sort(self._offsets(0, rest))
        whole, part = np.divmod(self.ends, PERIOD)
        carried = rest - np.searchsorted(offsets, PERIOD - part)  # offsets that reach one more
        return _steps(periods * self.ends + rest * whole + carried)

    def _offsets(self, first: int, number: int) -> Rows:
        """Rounding offsets of epochs: 0 .. P - 1 in bit-reversed order, keyed by the seed."""
        numbers, reversed_ = np.arange(first, first + number), np.zeros(number, np.int64)
        for bit in range(PERIOD_BITS):
            reversed_ |= (numbers >> bit & 1) << (PERIOD_BITS - 1 - bit)
        return reversed_ ^ self.offset_key

    def _plan_epoch(self, epoch: int) -> NDArray[np.int32]:
        """The rows of an epoch in their order, (N,)."""
        n, quotas = self.num_samples, self.quotas(epoch)
        balanced = self.is_balanced(np.arange(n))
        quotas_balanced = self._split(quotas, epoch)
        classes = np.empty(n, np.int64)
        classes[~balanced] = self._spread(
            quotas - quotas_balanced, f"rest/{self.part}{epoch}", 0.0
        )
        classes[balanced] = self._spread(quotas_balanced, f"balanced/{self.part}{epoch}", 0.5)
        rows = np.empty(n, np.int32)
        used = self.shown.used + self.used(epoch)
        rows[np.argsort(classes, kind="stable")] = self._take(used, quotas)
        return rows

    def _split(self, quotas: Rows, epoch: int) -> Rows:
        """Balanced images of each class, (K,): of its quota, equally many to within one."""
        share, missing = divmod(self.num_balanced, len(quotas))
        balanced = np.full(len(quotas), share)
        order = rng.permutation(
            self.seed, f"resample/extra/{self.part}{epoch}", len(quotas)
        ).numpy()
        while missing:
            raised = order[balanced[order] < quotas[order]][:missing]
            balanced[raised] += 1
            missing -= len(raised)
        return balanced

    def _spread(self, quotas: Rows, purpose: str, shift: float) -> Rows:
        """Class positions in the order of their times: (K,) images a class -> (Q,)."""
        classes = np.repeat(np.arange(len(quotas)), quotas)  # (Q,)
        numbers = np.arange(len(classes)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
        chance = self._words(purpose, np.arange(len(classes))) / 2.0**63
        phase = (self.phase[classes] + shift) % 1
        times = (numbers + (1 - JITTER) * phase + JITTER * chance) / quotas[classes]
        return classes[np.argsort(times, kind="stable")]

    def _take(self, used: Rows, quotas: Rows) -> Rows:
        """Rows of each class's next ``quotas`` occurrences after ``used``, class by class."""
        begin, skip = np.divmod(used, self.counts)  # (K,) cycles, occurrences into them
        cycles = -(-(skip + quotas) // self.counts)  # (K,) cycles that are touched
        lengths = cycles * self.counts
        class_ = np.repeat(np.arange(len(quotas)), lengths)  # (all images of those cycles,)
        starts = np.cumsum(lengths) - lengths  # (K,)
        cycle, member = np.divmod(np.arange(len(class_)) - starts[class_], self.counts[class_])
        rows = self.members[self.first[class_] + member]
        turn = begin[class_] + cycle
        left_amid = turn == self.shown.open_epoch
        second = (member == self.counts[class_] // 2) & ~left_amid
        half = np.cumsum((member == 0) | second)  # their numbers
        words = self._words("turns", turn % 2**31 << 32 | rows)
        if self.shown.open_order is not None:
            words[left_amid] = self.shown.open_order[rows[left_amid]]
        played = rows[np.lexsort((words, half))]
        wanted = np.arange(quotas.sum()) - np.repeat(np.cumsum(quotas) - quotas, quotas)
        return np.asarray(played[np.repeat(starts + skip, quotas) + wanted])

    def _words(self, purpose: str, numbers: Rows) -> Rows:
        """A random word in [0, 2^63) for each number: (n,) -> (n,)."""
        words = np.empty(len(numbers), np.int64)
        for i in range(0, len(numbers), CHUNK):
            part = torch.from_numpy(numbers[i : i + CHUNK])
            pair = rng.bits(self.seed, f"resample/{purpose}", part, 2)
            words[i : i + CHUNK] = (pair[:, 0] << 31 | pair[:, 1] >> 1).numpy()
        return words


class ChangingPlan:
    """A run in parts, each with a target of its own: a schedule of the exposure."""

    num_streams = 1

    def __init__(self, index: Index, seed: int, parts: Sequence[Part]):
        self._recipe = (index, seed, tuple(parts))
        self.num_samples = index.num_samples
        check_resampling(self.num_samples, parts)
        self.sizes = np.array([self.num_samples])
        self.starts = np.array([part.start for part in parts])  # (parts,), the first 0
        self.plans: list[Plan] = [make_plan(index, seed, parts[:1])]
        for part, images in zip(parts[1:], np.diff(self.starts).tolist(), strict=True):
            before = self.plans[-1]
            if isinstance(before, ResampledPlan):
                shown = before.shown_after(images)
            else:
                shown = _shown_plainly(index, before, images)
            plan = ResampledPlan(index, seed, part.power, part.balanced_fraction, shown)
            self.plans.append(plan)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChangingPlan, self._recipe

    def rows(self, sample_ids: Rows) -> Rows:
        """Index rows of images: (n,) int64 numbers since the run began -> (n,) int64."""
        sample_ids = np.asarray(sample_ids, np.int64)
        parts = np.searchsorted(self.starts, sample_ids, side="right") - 1
        rows = np.empty(len(sample_ids), np.int64)
        for part in np.unique(parts).tolist():
            here = parts == part
            rows[here] = self.plans[part].rows(sample_ids[here] - self.starts[part])
        return rows

    def successors(self, sample_id: int) -> Iterator[int]:
        """Rows that stand in for an unreadable sample, as the part has them."""
        part = int(np.searchsorted(self.starts, sample_id, side="right")) - 1
        return self.plans[part].successors(sample_id - int(self.starts[part]))


def _shown_plainly(index: Index, plan: Plan, images: int) -> Shown:
    """What has come when ``images`` of a plan have that shows every sample once an epoch."""
    n = index.num_samples
    epoch, rest = divmod(images, n)
    order = plan.rows(np.arange(epoch * n, (epoch + 1) * n))  # (N,) rows
    labels = np.asarray(index.labels[np.arange(n)])
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    used = epoch * counts + np.bincount(class_of[order[:rest]], minlength=len(counts))
    return Shown(1, used, epoch, np.argsort(order))


def _steps(reached: Rows) -> Rows:
    """From what has been reached after each class, what each class has: (K,) -> (K,)."""
    return np.asarray(np.diff(reached, prepend=0))


def _largest_remainder(shares: NDArray[np.float64], total: int) -> Rows:
    """Whole numbers with this total that differ from the shares by less than one."""
    whole = np.floor(shares).astype(np.int64)
    order = np.argsort(whole - shares, kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole
