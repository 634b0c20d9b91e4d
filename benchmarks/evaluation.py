"""FID, precision / recall and PRD of 2,048 features: ours against the textbook code.

    python -m benchmarks.evaluation [--images 50000] [--textbook 10000 20000] [--threads 2]

Images are those of a side; PRD has 20 clusters for each of --classes. Every case runs in a
fresh process, and its peak memory is that of the process. The textbook code is what the papers'
own does: numpy's covariance and scipy's sqrtm; full matrices of torch.cdist in float64, one for
each radius and one for each score; scikit-learn's MiniBatchKMeans with 10 starts in each of 10
runs. It does not fit into memory at 50,000 images: its two smaller cases are extrapolated, and
printed beside it. CPU seconds are those of all threads; on a machine that others use too they
are the steadier ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Bench, arguments, in_new_process, markdown, memory_mb, timed

DIM, LATENT = 2048, 128
FID, PRD, NEIGHBOURS = "FID", "PRD", "precision / recall"
Score = Callable[[Tensor, Tensor], list[float]]
"""Of real and generated features (n, DIM)."""


@dataclass
class Case:
    """What each part took and said, and the peak memory of the process."""

    code: str
    num_images: int
    seconds: dict[str, tuple[float, float]]
    """On the clock, and of CPU."""
    scores: dict[str, list[float]]
    peak_gb: float

    def columns(self) -> list[tuple[float, float]]:
        """Seconds of each part, and of all."""
        wall, cpu = zip(*self.seconds.values(), strict=True)
        return [*self.seconds.values(), (sum(wall), sum(cpu))]


def features(seed: int, n: int, num_classes: int) -> Tensor:
    """Rectified mixture with a decaying spectrum, such as pooled features: (n, DIM)."""
    shared = torch.Generator().manual_seed(0)
    mix = torch.randn(LATENT, DIM, generator=shared)
    mix *= torch.logspace(0, -1, LATENT)[:, None] / LATENT**0.5
    middles = torch.randn(num_classes, LATENT, generator=shared) * 1.5
    rng = torch.Generator().manual_seed(seed)
    x = torch.empty(n, DIM)
    for part, y in zip(x.split(1000), torch.arange(n).split(1000), strict=True):
        z = middles[y % num_classes] + torch.randn(len(part), LATENT, generator=rng)
        part.copy_((z @ mix + 0.2 * torch.randn(part.shape, generator=rng)).relu_())
    return x


def our_parts(num_classes: int) -> dict[str, Score]:
    """The product's functions."""
    from cbdm_scale.metrics.fid import fid
    from cbdm_scale.metrics.prd import prd
    from cbdm_scale.metrics.precision_recall import manifold_scores

    def by_prd(real: Tensor, fake: Tensor) -> list[float]:
        scores = prd(real, fake, num_classes)
        return [scores.f8, scores.f_eighth]

    def by_neighbours(real: Tensor, fake: Tensor) -> list[float]:
        scores = manifold_scores(real, fake)
        return [scores.precision, scores.recall]

    return {FID: lambda real, fake: [fid(real, fake)], PRD: by_prd, NEIGHBOURS: by_neighbours}


def textbook_fid(real: Tensor, fake: Tensor) -> list[float]:
    import scipy.linalg

    a, b = real.double().numpy(), fake.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    difference = a.mean(0) - b.mean(0)
    return [float(difference @ difference + np.trace(cov_a + cov_b - 2 * root))]


def textbook_neighbours(real: Tensor, fake: Tensor, k: int = 5) -> list[float]:
    def inside(probes: Tensor, manifold: Tensor) -> float:
        radius = torch.cdist(manifold, manifold).kthvalue(k + 1, dim=1).values
        return float((torch.cdist(probes, manifold) <= radius).any(1).double().mean())

    a, b = real.double(), fake.double()
    return [inside(b, a), inside(a, b)]


def textbook_prd(real: Tensor, fake: Tensor, num_clusters: int) -> list[float]:
    from sklearn.cluster import MiniBatchKMeans

    both = torch.cat([real, fake]).double().numpy()
    slope = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 1001))[:, None]
    curves = []
    for run in range(10):
        labels = MiniBatchKMeans(num_clusters, n_init=10, random_state=run).fit_predict(both)
        p, q = (
            np.bincount(y, minlength=num_clusters) / len(y)
            for y in (labels[: len(real)], labels[len(real) :])
        )
        precision = np.minimum(p * slope, q).sum(1)
        curves.append((precision, precision / slope[:, 0]))
    precision, recall = np.mean(curves, 0)
    return [
        float(((1 + b**2) * precision * recall / (b**2 * precision + recall)).max())
        for b in (8, 1 / 8)
    ]


def textbook_parts(num_clusters: int) -> dict[str, Score]:
    def by_prd(real: Tensor, fake: Tensor) -> list[float]:
        return textbook_prd(real, fake, num_clusters)

    return {FID: textbook_fid, PRD: by_prd, NEIGHBOURS: textbook_neighbours}


def run_case(code: str, n: int, num_classes: int, threads: int) -> dict[str, Any]:
    """A Case: all parts on n real and n generated images, in this process."""
    torch.set_num_threads(threads)
    real, fake = features(1, n, num_classes), features(2, n, num_classes)
    fake.mul_(0.97)
    parts = our_parts(num_classes) if code == "ours" else textbook_parts(20 * num_classes)
    case = Case(code, n, {}, {}, 0)
    for name, part in parts.items():
        cost = timed(lambda name=name, part=part: case.scores.update({name: part(real, fake)}))
        case.seconds[name] = cost.wall, cost.cpu
        case.peak_gb = memory_mb("VmHWM") / 1024
        shown = f"{cost.wall:.1f} s, CPU {cost.cpu:.1f} s, peak {case.peak_gb:.2f} GB"
        print(f"{code} {n:,} {name}: {shown}", flush=True)
    return asdict(case)


def extrapolate(small: Case, large: Case, n: int) -> Case:
    """FID and PRD along the line through both cases; distances and memory as n squared."""
    step = (n - large.num_images) / (large.num_images - small.num_images)
    square = (n / large.num_images) ** 2

    def at_n(part: str, which: int) -> float:
        a, b = small.seconds[part][which], large.seconds[part][which]
        return b * square if part == NEIGHBOURS else b + step * max(0.0, b - a)

    seconds = {part: (at_n(part, 0), at_n(part, 1)) for part in large.seconds}
    curve = (large.peak_gb - small.peak_gb) / (large.num_images**2 - small.num_images**2)
    peak = large.peak_gb + curve * (n**2 - large.num_images**2)
    return Case("textbook, extrapolated", n, seconds, {}, peak)


def table(cases: Sequence[Case], ours: Case, theirs: Case) -> str:
    """Markdown: wall (CPU) seconds of each part, their sum, peak memory; ratios to ours."""
    rows = []
    for c in cases:
        cells = [f"{wall:.1f} ({cpu:.1f})" for wall, cpu in c.columns()]
        rows.append([c.code, f"{c.num_images:,}", *cells, f"{c.peak_gb:.2f}"])
    pairs = zip(theirs.columns(), ours.columns(), strict=True)
    ratios = [f"{a[0] / b[0]:.1f} ({a[1] / b[1]:.1f})" for a, b in pairs]
    rows.append(["textbook / ours", "", *ratios, f"{theirs.peak_gb / ours.peak_gb:.1f}"])
    parts = [f"{part} s" for part in ours.seconds]
    return markdown(["", "images a side", *parts, "sum s", "peak GB"], rows)


def main() -> None:
    args = arguments(
        __doc__, repetitions=0, images=50_000, textbook=[10_000, 20_000], classes=10, threads=2
    )
    small, large = args.textbook
    bench, found = Bench(args, threads=args.threads, classes=args.classes), {}
    wanted = {"ours": [small, large, args.images], "textbook": [small, large]}
    for code, n in [(code, n) for code, sizes in wanted.items() for n in sizes]:
        given, env = (code, n, args.classes, args.threads), {"OMP_NUM_THREADS": args.threads}
        found[code, n] = Case(**in_new_process(run_case, *given, env=env))
        bench.keep({"cases": [asdict(case) for case in found.values()]})
    theirs = extrapolate(found["textbook", small], found["textbook", large], args.images)
    lines = ["The same numbers, up to the seeds of the clusters:\n"]
    for n in small, large:
        for name, scores in found["ours", n].scores.items():
            pairs = zip(scores, found["textbook", n].scores[name], strict=True)
            shown = ", ".join(f"{x:.5f} / {y:.5f}" for x, y in pairs)
            lines.append(f"{n:,} {name}, ours / textbook: {shown}")
    cases = [*found.values(), theirs]
    bench.finish(table(cases, found["ours", args.images], theirs), "\n".join(lines))


if __name__ == "__main__":
    main()
