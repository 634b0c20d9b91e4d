"""The measurement: jobs for `ranks.run`, the tables that come out, and the fitted constants."""

from dataclasses import asdict, dataclass
from statistics import fmean, median

from benchmarks.scaling import model
from benchmarks.scaling import variants as v
from benchmarks.scaling.ranks import Job, Measured, run
from benchmarks.timing import Bench, Samples, arguments, markdown, table

FEW = [v.LOCAL, v.PRODUCT, v.ALONE, v.ALONE_1, v.SMALL]
"""What the fit needs, for the further numbers of ranks."""
EVERYTHING = [*FEW, v.BF16, v.MANY_LOCAL, v.MANY]


@dataclass(frozen=True)
class Constants:
    """What the model takes from a measurement."""

    bandwidth: float
    """Bytes a second of a rank in a ring, each direction."""
    latency: float
    """Seconds of a hop."""
    hidden: float
    """Share that hid of the communication that could have, from 0 to 1."""


def wire_table(all_measured: list[Measured]) -> str:
    """Bytes that a rank sends in a step, against the least that any all-reduce sends."""
    rows = []
    for m in all_measured:
        for name in (v.PRODUCT, v.SMALL, v.MANY, v.BF16):
            if name in m.sent:
                size = m.gradient_bytes / (2 if name == v.BF16 else 1)
                sent, bound = max(m.sent[name]), model.ring_bytes(size, m.ranks)
                numbers = (m.gradient_bytes / 1e6, sent / 1e6, bound / 1e6)
                cells = [f"{number:.3f}" for number in numbers]
                rows.append([m.ranks, name, *cells, f"{sent / bound:.4f}"])
    sizes = "gradients MB", "sent by a rank MB", "ring bound MB"
    return markdown(["ranks", "variant", *sizes, "sent / bound"], rows)


def time_table(m: Measured) -> str:
    """A step of each variant, beside the one that does not communicate."""
    return table({n: Samples(m.wall_s[n], m.cpu_s[n]) for n in m.wall_s}, over=[v.LOCAL])


def fit(all_measured: list[Measured]) -> Constants:
    """The constants of one network, from every group of two or more ranks on it."""
    points, shares = [], []
    for m in (m for m in all_measured if m.ranks > 1):
        seconds = {name: median(wall) for name, wall in m.wall_s.items()}
        for name, buckets in ((v.ALONE, m.buckets), (v.ALONE_1, m.small_buckets)):
            points.append(
                model.Reduction(m.ranks, m.gradient_bytes, len(buckets), seconds[name])
            )
        shares.append(
            model.hidden_share(seconds[v.LOCAL], seconds[v.ALONE], seconds[v.PRODUCT])
        )
    bandwidth, latency = model.fit_link(points)
    return Constants(bandwidth, latency, min(max(fmean(shares), 0), 1))


def check_table(all_measured: list[Measured], constants: Constants) -> str:
    """The model's step beside the measured one: what it was fitted to, and how well."""
    rows = []
    for m in (m for m in all_measured if m.ranks > 1):
        wire = model.ring_bytes(m.gradient_bytes, m.ranks) / constants.bandwidth
        hops = 2 * (m.ranks - 1) * len(m.buckets) * constants.latency
        expected = model.with_overlap(median(m.wall_s[v.LOCAL]), wire + hops, constants.hidden)
        real = median(m.wall_s[v.PRODUCT])
        rows.append([m.ranks, f"{real:.3f}", f"{expected:.3f}", f"{expected / real:.3f}"])
    return markdown(["ranks", "measured s", "model s", "model / measured"], rows)


def main() -> None:
    """All groups of ranks on all loopbacks; the first of two ranks has all variants."""
    args = arguments(__doc__, ranks=[1, 2, 3], rates=["free"], channels=64, images=2)
    bench = Bench(args, channels=args.channels, **{"images a rank": args.images})
    tables = []
    for rate in args.rates:
        group = []
        for ranks in args.ranks if rate == "free" else [n for n in args.ranks if n > 1]:
            print(f"{ranks} ranks, loopback {rate}", flush=True)
            names = EVERYTHING if rate == args.rates[0] and ranks == 2 else FEW
            job = Job(ranks, names, args.repetitions, args.channels, args.images)
            group.append(run(job, rate))
            bench.keep({rate: [asdict(m) for m in group]})
        tables += [f"loopback: {rate}", wire_table(group), *map(time_table, group)]
        if max(args.ranks) > 1:
            c = fit(group)
            link = f"{c.bandwidth / 1e6:.0f} MB/s a rank, {c.latency * 1e6:.0f} us a hop"
            tables += [f"fitted: {link}, hidden {c.hidden:.0%}", check_table(group, c)]
    bench.finish(*tables)
