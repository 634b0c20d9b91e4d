"""Evaluations as they could be, made by rule and not by a network, and images for them."""

import random

import pytest
import torch

from cbdm_scale.data.groups import GROUPS, class_groups
from cbdm_scale.evaluation.examples import shown_classes
from cbdm_scale.evaluation.report.charts import Panel
from cbdm_scale.evaluation.report.images import ReportImages
from cbdm_scale.evaluation.results import Evaluation, Missing, SetResult
from cbdm_scale.metrics.intervals import Interval, wilson
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import ClassScore, ClassTable
from cbdm_scale.metrics.prd import f_beta, prd_curve


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def long_tail(num_classes: int, most: int = 500, ratio: float = 0.01) -> list[int]:
    """Exponential counts, shuffled so that label order is not the order of frequency."""
    counts = [
        max(1, int(most * ratio ** (c / max(1, num_classes - 1)))) for c in range(num_classes)
    ]
    random.Random(1).shuffle(counts)
    return counts


def table(counts, *, level=1.0, fidelity=True, images=100, seed=0) -> ClassTable:
    """Rare classes are worse by a power of their count; ``level`` multiplies every distance."""
    rng, groups, rows = random.Random(seed), class_groups(counts), []
    for c, (n, group) in enumerate(zip(counts, groups, strict=True)):
        badness = (max(counts) / n) ** 0.45 * rng.uniform(0.7, 1.35)
        kid = level * 0.004 * badness
        fid = level * 9 * badness**0.8
        share = max(0.05, min(0.99, 1.02 - 0.11 * badness / level**0.2 * level))
        rows.append(
            ClassScore(
                label=c,
                group=group,
                num_train=n,
                num_real=images,
                num_fake=images,
                kid=around(kid, 0.25 * kid + 0.0008),
                fid=around(fid, 0.15 * fid) if images >= 50 else None,
                fid_images=(images, images) if images >= 50 else None,
                fid_missing=None if images >= 50 else f"{images} real images: too few",
                fidelity=wilson(round(share * images) / images, images) if fidelity else None,
            )
        )
    return ClassTable(tuple(rows), tuple(pooled(rows, g) for g in (None, *GROUPS)))


def pooled(rows, group) -> ClassScore:
    mine = [r for r in rows if group in (None, r.group)]
    if not mine:
        return ClassScore(None, group, 0, 0, 0, None, None, None, "no images", None)
    mean = sum(r.kid.value for r in mine) / len(mine)
    total = sum(r.num_fake for r in mine)
    shares = [r.fidelity.value for r in mine if r.fidelity]
    return ClassScore(
        label=None,
        group=group,
        num_train=sum(r.num_train for r in mine),
        num_real=total,
        num_fake=total,
        kid=around(mean, 0.06 * mean),
        fid=around(1000 * mean, 60 * mean) if total >= 50 else None,
        fid_images=(total, total) if total >= 50 else None,
        fid_missing=None if total >= 50 else "too few",
        fidelity=wilson(sum(shares) / len(shares), total) if shares else None,
    )


def one_set(counts, omega, *, level=1.0, scores=True, fidelity=True, images=100, seed=0):
    """A set at one guidance strength: best FID near omega 0.8, fidelity rises with omega."""
    bend = 1 + 0.5 * (omega - 0.8) ** 2
    fid = 6.0 * level * bend
    size = 200
    real = torch.full((size,), 1 / size)
    fake = torch.softmax(
        torch.randn(size, generator=torch.Generator().manual_seed(7)) * 0.5 * bend * level, 0
    )
    precision, recall = prd_curve(real, fake)
    missing = (
        [] if scores else [Missing("inception_score", "the network has no ImageNet classes")]
    )
    groups = class_groups(counts)
    return SetResult(
        images=f"runs/example/samples/omega_{omega:g}",
        omega=omega,
        guidance_mode="cfg",
        num_images=images * len(counts),
        fid=around(fid, 0.06 * fid),
        kid=around(0.002 * level * bend, 0.0003),
        inception_score=around(12 - level + 2 * omega - 0.5 * omega**2, 0.2)
        if scores
        else None,
        precision=0.66 + 0.08 * omega - 0.04 * level,
        recall=0.69 - 0.09 * omega - 0.09 * level,
        density=0.8 + 0.1 * omega - 0.1 * level,
        coverage=0.81 - 0.02 * omega - 0.1 * level,
        f8=f_beta(precision, recall, 8),
        f_eighth=f_beta(precision, recall, 1 / 8),
        prd_note=f"{20 * len(counts):,} clusters of {images * len(counts):,} images a side",
        prd_precision=tuple(precision.tolist()),
        prd_recall=tuple(recall.tolist()),
        fidelity=around(0.78 + 0.05 * omega - 0.05 * level, 0.008) if fidelity else None,
        table=table(counts, level=level * bend, fidelity=fidelity, images=images, seed=seed),
        memorisation=tuple(
            GroupMemorisation(g, images * n, 0.93 if n else None, share if n else None)
            for g, share in zip((None, *GROUPS), (0.021, 0.006, 0.012, 0.055), strict=True)
            for n in [sum(g in (None, other) for other in groups)]
        ),
        missing=tuple(missing),
    )


def example(
    num_classes=10,
    *,
    omegas=(0.0, 0.4, 0.8, 1.2, 1.6),
    level=1.0,
    extractor="inception",
    scores=True,
    fidelity=True,
    images=100,
    names=None,
    run="cifar100_lt-cbdm-1a2b3c",
    seed=0,
) -> Evaluation:
    """An evaluation of a run on ``num_classes`` classes."""
    counts = long_tail(num_classes)
    return Evaluation(
        id="5f0c2d91",
        run=run,
        checkpoint=f"runs/{run}/checkpoints/000012800000",
        trained_images=12_800_000,
        dataset="cifar100_lt",
        dataset_fingerprint="9d41c07be2a35f10",
        class_names=names or tuple(f"class {c}" for c in range(num_classes)),
        extractor=extractor,
        extractor_fingerprint="6726825d0e11a2b4",
        resize="bilinear",
        num_real=images * num_classes,
        held_out_copies=tuple(
            GroupMemorisation(g, images * num_classes // 4, 0.97, share)
            for g, share in zip((None, *GROUPS), (0.006, 0.005, 0.007, 0.008), strict=True)
        ),
        sets=tuple(
            one_set(
                counts,
                omega,
                level=level,
                scores=scores,
                fidelity=fidelity,
                images=images,
                seed=seed,
            )
            for omega in omegas
        ),
    )


@pytest.fixture
def valid_charts(monkeypatch):
    """Every chart that the test draws is held against Vega-Lite's schema, or raises."""
    monkeypatch.setattr(Panel, "spec", property(lambda panel: panel.chart.to_dict()))


def counts_of(evaluation: Evaluation) -> list[int]:
    return [row.num_train for row in evaluation.best.table.classes]


def pictures(evaluation: Evaluation, *, channels=3, side=32, nearest=True, n=8) -> ReportImages:
    """Smooth random colours."""
    classes = shown_classes(counts_of(evaluation))
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(3 * len(classes) * n, channels, 4, 4, generator=rng)
    big = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    real, made, near = (
        (big * 255).to(torch.uint8).view(3, len(classes), n, channels, side, side)
    )
    return ReportImages(classes, real, made, near if nearest else None)
