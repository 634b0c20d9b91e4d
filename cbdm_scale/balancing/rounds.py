"""Generating until the classes are filled or the limit is reached, round by round.

A round is a set of images like those of the sample command, in the run's folder of samples, so
that a command that was killed finds what it made. Its numbers follow from what was accepted
before, its seed from its place. K = classes, N = images.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cbdm_scale.balancing.filters import (
    ImageFilter,
    Looks,
    Thresholds,
    Verdicts,
    choose_thresholds,
    share_passed,
    unknown_classes,
)
from cbdm_scale.balancing.inputs import Inputs
from cbdm_scale.balancing.quotas import next_quotas
from cbdm_scale.generation.chunks import make_missing_chunks
from cbdm_scale.generation.plan import SetPlan
from cbdm_scale.generation.store import ChunkStore, SetImages
from cbdm_scale.metrics.intervals import wilson
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import shorten


@dataclass(frozen=True)
class Round:
    """The images of a round, and what was found of them."""

    images: SetImages
    looks: Looks
    verdicts: Verdicts

    @property
    def plan(self) -> SetPlan:
        """What decides its pixels."""
        return self.images.store.plan

    def rows(self, reasons: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of the images with one of these reasons; "" is accepted."""
        return np.flatnonzero([reason in reasons for reason in self.verdicts.reasons])


@dataclass(frozen=True)
class Found:
    """All rounds, and what they were judged by."""

    thresholds: Thresholds
    held_out: str
    """The real images that thresholds come from, in words."""
    real_passed: float
    """Share of those that pass all filters."""
    fidelity: float
    """Share of the first round's images that show the class asked for."""
    accepted: tuple[int, ...]
    """(K,)"""
    rounds: tuple[Round, ...]

    def reasons(self, label: int) -> Counter[str]:
        """Filter -> images of a class that it rejected; "" those that were accepted."""
        found: Counter[str] = Counter()
        for one in self.rounds:
            labels = one.looks.labels.tolist()
            found.update(
                r for r, y in zip(one.verdicts.reasons, labels, strict=True) if y == label
            )
        return found

    def images(self, label: int, reasons: Sequence[str]) -> Iterator[tuple[Round, int]]:
        """Round and number of the images of a class with one of these reasons, as made."""
        for one in self.rounds:
            for i in one.rows(reasons).tolist():
                if one.looks.labels[i] == label:
                    yield one, i


def round_plan(plan: SetPlan, place: int, quotas: Sequence[int]) -> SetPlan:
    """The set of a round: so many images of each class (K,), of noise of its own."""
    text = f"balance {plan.seed} {place}".encode()
    classes = tuple(c for c, n in enumerate(quotas) if n)
    return replace(
        plan,
        labels="counts",
        classes=classes,
        quotas=tuple(quotas[c] for c in classes),
        seed=int.from_bytes(hashlib.sha256(text).digest()[:4]) >> 1,
    )


def make_rounds(inputs: Inputs) -> Found:
    """Generate, look and filter; ValueError for a run without labels, or if nothing is left."""
    options, real = inputs.options, inputs.real
    train = inputs.look(inputs.train, "training images")
    held_out, words = inputs.held_out
    seen = train if held_out is None else inputs.look(held_out, "held-out images")
    against = None if held_out is None else train
    limits = choose_thresholds(seen, against, real.groups, options.keep)
    passed = share_passed(seen, against, limits, options.asked)
    print(
        f"filters  {' '.join(options.asked) or 'none'}, by {words}; {passed:.0%} of those pass"
    )
    if "label" in options.asked and (unknown := unknown_classes(limits, inputs.need)):
        names = shorten([real.class_names[c] for c in unknown])
        print(
            f"note: the classifiers know {names} hardly better than a guess: label says little"
        )
    chosen = ImageFilter(limits, train, options.asked, inputs.need)
    made, fidelity = [0] * real.num_classes, 0.0
    rounds: list[Round] = []
    while any(quotas := next_quotas(inputs.need, chosen.count, made, options.most)):
        images = _make(inputs, round_plan(inputs.plan, len(rounds), quotas), sum(quotas))
        looks = inputs.look(images, f"round {len(rounds) + 1}")
        if not rounds:
            fidelity = _check_learnt(inputs, looks)
        rounds.append(Round(images, looks, chosen(looks)))
        made = [m + q for m, q in zip(made, quotas, strict=True)]
        print(
            f"round {len(rounds)}: {sum(chosen.count):,} of {sum(inputs.need):,} images after "
            f"{sum(made):,} made",
            flush=True,
        )
    if not any(chosen.count):
        reasons = Counter(r for one in rounds for r in one.verdicts.reasons)
        told = ", ".join(f"{n:,} by {name}" for name, n in reasons.most_common())
        raise ValueError(
            f"keep ({options.keep:g}): the filters left none of {sum(made):,} images "
            f"(rejected: {told}). Try --keep {(1 + options.keep) / 2:g}, fewer --filters, "
            "another --guidance, or train longer."
        )
    return Found(limits, words, passed, fidelity, tuple(chosen.count), tuple(rounds))


def _make(inputs: Inputs, plan: SetPlan, num_images: int) -> SetImages:
    samples = Storage(inputs.pretrained.samples, option="")
    store = ChunkStore(samples.child(plan.name), plan)
    store.write_plan()
    weights = inputs.pretrained.weights, inputs.guide.weights if inputs.guide else b""
    make_missing_chunks(store, *weights, num_images, inputs.options.cluster)
    return SetImages(store, plan.chunks(num_images))


def _check_learnt(inputs: Inputs, looks: Looks) -> float:
    """Share of images that show the class asked for; ValueError if a guess may be as good."""
    num, fidelity = len(looks.labels), (looks.predicted == looks.labels).double().mean().item()
    shares = torch.tensor(inputs.real.counts["train"], dtype=torch.float64)
    shares /= shares.sum()
    # Right by chance: of a network that draws from all classes, or of a classifier that does.
    chance = max(shares[looks.labels].mean().item(), 1 / inputs.real.num_classes)
    print(f"labels   {fidelity:.0%} of {num:,} images show the class asked for", flush=True)
    if wilson(fidelity, num).low <= chance and inputs.real.num_classes > 1:
        told = (
            f"run ({inputs.options.run}) has not learnt its labels: {fidelity:.1%} of {num:,} "
            f"generated images show the class asked for, and a guess would {chance:.1%}."
        )
        if not inputs.options.force:
            raise ValueError(f"{told} Train longer, try another --guidance, or add --force.")
        print(f"warning: {told}", flush=True)
    return fidelity
