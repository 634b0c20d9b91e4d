"""How near one call a step comes to two (Figure 12 in miniature), of runs that are there.

    python -m benchmarks.one_call --base BASE ... --run RUN ... [--png FILE]

--run: networks that know omega; --base: what each is held against with two calls (for TCFG as
printed itself). ``cbdm evaluate`` has seen both at the same strengths. Prints FID and labels
kept over omega, the mean of the runs with their range, and how far one call is from two at the
same noisy image: ||one - two||^2 as a share of ||two - unguided||^2, over omega and t / T.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import altair as alt
import torch

from benchmarks.timing import markdown, parse
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.report.charts import (
    COLOUR,
    Panel,
    Picture,
    layers,
    series_colour,
    tooltip,
)
from cbdm_scale.evaluation.store import read_evaluations
from cbdm_scale.losses.term import mean_sq
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sampling.guidance import trained
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir

SHARES = 0.0205, 0.1005, 0.2505, 0.5005, 0.7505, 0.9505
"""t / T, the middle of a step of DDPM."""
OMEGAS = 0.25, 0.5, 1.0, 1.5, 2.0
SCORES = {
    "fid": "FID",
    "fid_many": "many",
    "fid_medium": "medium",
    "fid_few": "few",
    "fidelity": "label kept",
    "fidelity_few": "label kept, few",
    "recall": "recall",
    "recall_few": "recall, few",
}
WAYS = {"cfg": "two calls", "tcfg": "one call"}
Curve = dict[float, dict[str, float]]
"""omega -> score -> value."""


def curve(run: str, mode: str) -> Curve:
    """The newest scores at every strength that one way of guiding was evaluated at."""
    stored, _ = read_evaluations(Storage(run).child(RunDir.EVALUATION))
    found: Curve = {}
    for one in stored:
        for made in one.evaluation.sets:
            if made.guidance_mode == mode and isinstance(made.omega, float):
                found[made.omega] = made.scores
    if not found:
        raise SystemExit(f"{run} has no evaluation with {WAYS[mode]}. Type cbdm evaluate.")
    return dict(sorted(found.items()))


def score_table(curves: Mapping[str, list[Curve]]) -> str:
    """The mean and the range of the runs; the smallest FID of each way is marked."""
    rows = []
    for way, runs in curves.items():
        best = min(runs[0], key=lambda omega: fmean(run[omega]["fid"] for run in runs))
        for omega in runs[0]:
            cells = []
            for score in SCORES:
                values = [run[omega][score] for run in runs]
                digits = 1 if score in ("fid_many", "fid_medium", "fid_few") else 2
                mean, *ends = (
                    f"{x:.{digits}f}" for x in (fmean(values), min(values), max(values))
                )
                mean = f"**{mean}**" if score == "fid" and omega == best else mean
                cells.append(f"{mean} ({' to '.join(ends)})" if len(runs) > 1 else mean)
            rows.append([way, f"{omega:g}", *cells])
    return markdown(["", "omega", *SCORES.values()], rows)


def panel(curves: Mapping[str, list[Curve]], score: str, title: str) -> Panel:
    """A score over omega, a line a way: the mean of the runs with the smallest and largest."""
    rows = []
    for way, runs in curves.items():
        for omega in runs[0]:
            values = [run[omega][score] for run in runs]
            row = {"x": omega, "low": min(values), "high": max(values), "series": way}
            rows.append(row | {"value": fmean(values)})
    colour = series_colour(**dict(zip(curves, (COLOUR["other"], COLOUR["run"]), strict=True)))
    x = alt.X("x:Q", title="guidance omega")
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    band = (
        layers(rows).mark_rule(opacity=0.35).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    )
    line = layers(rows).mark_line(point={"filled": True, "size": 40})
    drawn = line.encode(x=x, y=y, color=colour, tooltip=tooltip(series="way"))
    return Panel(title, "mean of the runs, and their range", alt.layer(band, drawn))


@torch.no_grad()
def distances(base: str, run: str, count: int = 600) -> dict[float, dict[float, float]]:
    """t / T -> omega -> what one call leaves out: mean ||one - two||^2 over mean ||two -
    unguided||^2, over real images of the split eval."""
    one, two = load_pretrained(run), load_pretrained(base)
    config, root = one.config, one.config.data.root
    manifest, index = (
        read_manifest(root, config.dataset),
        open_index(root, config.dataset, "eval"),
    )
    reader = ShardReader(root, config.dataset, index)
    rows = rng.permutation(0, "study", index.num_samples)[:count]
    x0 = to_model_range(torch.stack([torch.from_numpy(reader.load(i)) for i in rows.tolist()]))
    y = torch.from_numpy(index.labels[rows.numpy()].copy())
    process, null = build_process(config.noise), manifest.num_classes
    net, teacher = one.build(), two.build()
    found: dict[float, dict[float, float]] = {}
    for share in SHARES:
        eps = rng.normal(0, f"study {int(1000 * share)}", rows, x0[0].numel()).view_as(x0)
        noisy = process.noisy(x0, process.step(torch.full((len(y),), share)), eps)
        x_t, t = noisy.x, noisy.level
        plain, none = teacher(x_t, t, y), teacher(x_t, t, torch.full_like(y, null))
        of_share = found[round(share, 3)] = {}
        for omega in (o for o in OMEGAS if o <= one.spec.omega_max):
            push = omega * (plain - none)
            off = trained(net, omega, null)(x_t, t, y) - plain - push
            of_share[omega] = (mean_sq(off).mean() / mean_sq(push).mean()).item()
    return found


def distance_table(found: list[dict[float, dict[float, float]]]) -> str:
    """t / T by omega, in percent, the mean of the runs."""
    rows = [
        [f"{share:.2f}", *(f"{fmean(one[share][o] for one in found):.0%}" for o in by_omega)]
        for share, by_omega in found[0].items()
    ]
    omegas = next(iter(found[0].values()))
    return markdown(["t / T", *(f"omega {omega:g}" for omega in omegas)], rows)


def main() -> None:
    args = parse(__doc__, base=[""], run=[""], png="")
    if len(args.base) != len(args.run) or not all([*args.base, *args.run]):
        raise SystemExit("--base and --run are as many runs, in one order")
    curves = {
        "two calls": [curve(run, "cfg") for run in args.base],
        "one call": [curve(run, "tcfg") for run in args.run],
    }
    apart = [distances(base, run) for base, run in zip(args.base, args.run, strict=True)]
    print(f"{score_table(curves)}\n\n{distance_table(apart)}")
    if args.png:
        panels = [
            panel(curves, score, SCORES[score]) for score in ("fid", "fid_few", "fidelity")
        ]
        Path(args.png).write_bytes(Picture("one-call", tuple(panels)).png())


if __name__ == "__main__":
    main()
