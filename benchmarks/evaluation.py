"""FID, precision / recall and PRD of 2,048 features: ours against the textbook code.

    python -m benchmarks.evaluation [--images 50000] [--textbook 10000,20000] [--threads 2]

Every case runs in a fresh process, and its peak memory is that of the process. The textbook
code is what the papers' own does: numpy's covariance and scipy's sqrtm; full matrices of
torch.cdist in float64, one for each radius and one for each score; scikit-learn's
MiniBatchKMeans with 10 starts in each of 10 runs. It does not fit into memory at 50,000
images: its two smaller cases are extrapolated, and printed beside it. CPU seconds are those of
all threads; on a machine that others use too they are the steadier ones.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Bench, arguments, in_new_process, markdown, memory_mb, timed

DIM, LATENT = 2048, 128
PARTS = ("FID", "PRD", "precision / recall")


@dataclass
class Case:
    """Seconds and scores of each part, and the peak memory of the process."""

    code: str
    num_images: int
    seconds: dict[str, float]
    cpu: dict[str, float]
    scores: dict[str, list[float]]
    peak_gb: float
    start_gb: float
    """Before the first part: interpreter, libraries and features."""


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


def our_parts(num_classes: int) -> dict[str, Callable[[Tensor, Tensor], list[float]]]:
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

    found = (lambda real, fake: [fid(real, fake)], by_prd, by_neighbours)
    return dict(zip(PARTS, found, strict=True))


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


def textbook_parts(num_clusters: int) -> dict[str, Callable[[Tensor, Tensor], list[float]]]:
    found = (textbook_fid, lambda a, b: textbook_prd(a, b, num_clusters), textbook_neighbours)
    return dict(zip(PARTS, found, strict=True))


def run_case(code: str, n: int, num_classes: int) -> Case:
    """All parts on n real and n generated images, in this process."""
    real, fake = features(1, n, num_classes), features(2, n, num_classes)
    fake.mul_(0.97)
    parts = our_parts(num_classes) if code == "ours" else textbook_parts(20 * num_classes)
    case = Case(code, n, {}, {}, {}, 0, memory_mb("VmRSS") / 1024)
    for name, part in parts.items():
        cost = timed(lambda name=name, part=part: case.scores.update({name: part(real, fake)}))
        case.seconds[name], case.cpu[name] = cost.wall, cost.cpu
        case.peak_gb = memory_mb("VmHWM") / 1024
        shown = f"{cost.wall:.1f} s, CPU {cost.cpu:.1f} s, peak {case.peak_gb:.2f} GB"
        print(f"{code} {n:,} {name}: {shown}", file=sys.stderr, flush=True)
    return case


def fresh(code: str, n: int, args: argparse.Namespace) -> Case:
    """The same in a process of its own."""
    words = ["--case", f"{code}:{n}", "--threads", args.threads, "--classes", args.classes]
    env = {"OMP_NUM_THREADS": str(args.threads)}
    return Case(**in_new_process("benchmarks.evaluation", words, env))


def read_raw(path: str) -> list[Case]:
    """The cases of a run that was broken off."""
    if not path or not Path(path).exists():
        return []
    return [Case(**case) for case in json.loads(Path(path).read_text())["samples"]["cases"]]


def extrapolate(small: Case, large: Case, n: int) -> Case:
    """FID and PRD along the line through both cases; distances and memory as n squared."""
    step = (n - large.num_images) / (large.num_images - small.num_images)
    square = (n / large.num_images) ** 2

    def at_n(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
        lines = {name: b[name] + step * max(0.0, b[name] - a[name]) for name in PARTS}
        return lines | {PARTS[2]: b[PARTS[2]] * square}

    seconds, cpu = at_n(small.seconds, large.seconds), at_n(small.cpu, large.cpu)
    curve = (large.peak_gb - small.peak_gb) / (large.num_images**2 - small.num_images**2)
    peak = large.peak_gb + curve * (n**2 - large.num_images**2)
    return Case("textbook, extrapolated", n, seconds, cpu, {}, peak, 0.0)


def table(cases: list[Case], ours: Case) -> str:
    """Markdown: wall (CPU) seconds of each part, their sum, peak memory; ratios to ours."""
    rows = []
    for c in cases:
        cells = [f"{c.seconds[p]:.1f} ({c.cpu[p]:.1f})" for p in PARTS]
        cells += [f"{sum(c.seconds.values()):.0f} ({sum(c.cpu.values()):.0f})"]
        rows.append([c.code, f"{c.num_images:,}", *cells, f"{c.peak_gb:.2f}"])
    theirs = cases[-1]
    pairs = [(theirs.seconds[p] / ours.seconds[p], theirs.cpu[p] / ours.cpu[p]) for p in PARTS]
    wall, busy = (
        sum(getattr(theirs, kind).values()) / sum(getattr(ours, kind).values())
        for kind in ("seconds", "cpu")
    )
    ratios = [f"{a:.1f} ({b:.1f})" for a, b in [*pairs, (wall, busy)]]
    rows.append(["textbook / ours", "", *ratios, f"{theirs.peak_gb / ours.peak_gb:.1f}"])
    parts = [f"{p} s" for p in PARTS]
    return markdown(["", "images a side", *parts, "sum s", "peak GB"], rows)


def main() -> None:
    parser = arguments(__doc__, repetitions=0)
    parser.add_argument("--images", type=int, default=50_000, help="a side, for ours")
    parser.add_argument("--textbook", default="10000,20000", help="a side, two cases")
    parser.add_argument("--classes", type=int, default=10, help="20 clusters for each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        code, n = args.case.split(":")
        print(json.dumps(asdict(run_case(code, int(n), args.classes))))
        return
    small, large = (int(n) for n in args.textbook.split(","))
    wanted = [("ours", n) for n in (small, large, args.images)]
    wanted += [("textbook", n) for n in (small, large)]
    known = {(c.code, c.num_images): c for c in read_raw(args.raw)}
    bench, cases = Bench(args, threads=args.threads, classes=args.classes), []
    for code, n in wanted:
        cases.append(known.get((code, n)) or fresh(code, n, args))
        bench.keep({"cases": [asdict(c) for c in cases]})
    ours, theirs = cases[:3], cases[3:]
    cases.append(extrapolate(theirs[0], theirs[1], args.images))
    lines = ["The same numbers, up to the seeds of the clusters:\n"]
    for a, b in zip(ours, theirs, strict=False):
        for name in PARTS:
            pairs = zip(a.scores[name], b.scores[name], strict=True)
            shown = ", ".join(f"{x:.5f} / {y:.5f}" for x, y in pairs)
            lines.append(f"{a.num_images:,} {name}, ours / textbook: {shown}")
    bench.finish(table(cases, ours[-1]), "\n".join(lines))


if __name__ == "__main__":
    main()
