"""Figure 12 in miniature: guidance by one call a step against two, over omega.

    python -m benchmarks.tcfg_study --storage FOLDER [--seeds 0 1 2] [--picture FILE]
    python -m benchmarks.tcfg_study --storage FOLDER --process edm
    python -m benchmarks.tcfg_study --storage FOLDER --base 'RUNS/base-{seed}'
    python -m benchmarks.tcfg_study --storage FOLDER --printed

For each seed a denoiser of the digits is trained, or that of --base taken, and then its second
stage (--init-from, --loss.tcfg). Of both, FID over omega, the first guided by two predictions a
step, the second by one; and how far one call is from two at the same noisy image: ||one -
two||^2 as a share of ||two - unguided||^2, over omega and t / T. --printed has one network for
both, trained by Equations 32 and 33. --images are those of the first network, --num-images
those generated for each FID, --stage further options of the second stage, --workers those that
train (0: this process). Started again, it goes on where it was. Prints two Markdown tables, of
means and half the range over the seeds.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.commands import train_command
from benchmarks.timing import markdown, parse
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.report.charts import Panel, Picture, Row, layers
from cbdm_scale.evaluation.results import Scores
from cbdm_scale.losses.term import mean_sq
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork, find_training_data
from cbdm_scale.sampling.guidance import trained
from cbdm_scale.sampling.options import GuidanceMode
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import World

OMEGAS = 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0
SHARES = 0.0205, 0.1005, 0.2505, 0.5005, 0.7505, 0.9505
"""t / T, the middle of a step of DDPM."""
SMALL_EDM = (
    "--preset edm --backbone ddpmpp --model.channels 16 --model.multipliers 1 2 "
    "--model.num-blocks 1"
)
BASE = {
    "ddpm": "--preset ddpm --model.dropout 0",
    "edm": f"{SMALL_EDM} --model.dropout 0",
}
PRINTED = {
    "ddpm": "--preset tcfg",
    "edm": f"{SMALL_EDM} --loss.tcfg --loss.omega-max 1.0",
}
MODES: dict[str, GuidanceMode] = {"two calls": "cfg", "one call": "tcfg"}
COLUMNS = {
    "fid": "FID",
    "fid_many": "many",
    "fid_medium": "medium",
    "fid_few": "few",
    "fidelity": "label kept",
    "fidelity_many": "many",
    "fidelity_medium": "medium",
    "fidelity_few": "few",
}
Distances = dict[float, dict[float, float]]
"""t / T -> omega -> mean ||one - two||^2 over mean ||two - unguided||^2."""


def train(args: argparse.Namespace, name: str, options: str) -> PretrainedNetwork:
    """The network of a run, trained to its end by the train command."""
    more = (
        "--eval.extractor none --train.sample-every 0 --train.eval-every 0 "
        f"--train.save-every 24000 --cluster.workers {args.workers} "
        '--track.experiment "tcfg study"'
    )
    words = train_command(
        f"{options} {more}", shards=args.shards, storage=args.storage, name=name
    )
    print(shlex.join(words), flush=True)
    status = subprocess.run(words).returncode
    found = load_pretrained(Storage(args.storage).child(name).url) if not status else None
    if found is None or (found.num_seen or 0) < found.config.train.total_images:
        sys.exit(status or "stopped: the same command goes on from here")
    return found


def networks(args: argparse.Namespace, seed: int) -> dict[str, PretrainedNetwork]:
    """What is guided in each of ``MODES``."""
    if args.printed:
        options = f"{PRINTED[args.process]} --train.total-images {args.images} --seed {seed}"
        both = train(args, f"printed-{args.process}-seed{seed}", options)
        return dict.fromkeys(MODES, both)
    if args.base:
        base = load_pretrained(args.base.replace("{seed}", str(seed)))
    else:
        options = f"{BASE[args.process]} --train.total-images {args.images} --seed {seed}"
        base = train(args, f"base-{args.process}-seed{seed}", options)
    how = re.sub("[^a-z0-9]+", "-", args.stage).strip("-")
    name = "-".join(filter(None, ("stage", base.name, how)))
    start = shlex.quote(base.url)
    return {
        "two calls": base,
        "one call": train(args, name, f"--init-from {start} --loss.tcfg {args.stage}"),
    }


def scores_of(
    mode: GuidanceMode, network: PretrainedNetwork, args: argparse.Namespace
) -> Scores:
    """FID and label fidelity at every strength that it knows; kept in <storage>/study."""
    omegas = omegas_of(network, mode)
    config = replace(
        network.config,
        eval=replace(
            network.config.eval,
            extractor="classifier",
            guidance=omegas,
            guidance_mode=mode,
            num_images=args.num_images,
        ),
        train=replace(network.config.train, precision="fp32"),
    )
    folder = Storage(args.storage).child(f"study/{network.name}-{mode}")
    process = build_process(config.noise)
    evaluator = Evaluator(config, data_of(network, args), process, World(), folder)
    net, found = network.build(), {}
    for omega in omegas:
        found |= evaluator.evaluate(net, network.num_seen or 0, (omega,)).scores
        print(f"{mode} omega {omega:g}: FID {found[str(omega)]['fid']:.2f}", flush=True)
    return found


def omegas_of(network: PretrainedNetwork, mode: GuidanceMode) -> tuple[float, ...]:
    """The strengths that are looked at."""
    return tuple(o for o in OMEGAS if mode == "cfg" or o <= network.spec.omega_max)


def data_of(network: PretrainedNetwork, args: argparse.Namespace) -> Manifest:
    """The data set that it learnt."""
    manifest, _ = find_training_data(network, "")
    return manifest or read_manifest(args.shards, network.config.dataset)


@torch.no_grad()
def distances(
    two: PretrainedNetwork, one: PretrainedNetwork, args: argparse.Namespace, count: int = 600
) -> Distances:
    """Over images of the test split."""
    config, manifest = two.config, data_of(two, args)
    root = config.data.root
    index = open_index(root, config.dataset, "eval")
    reader = ShardReader(root, config.dataset, index)
    rows = rng.permutation(0, "study", index.num_samples)[:count]
    x0 = to_model_range(torch.stack([torch.from_numpy(reader.load(i)) for i in rows.tolist()]))
    y = torch.from_numpy(index.labels[rows.numpy()].copy())
    process, null = build_process(config.noise), manifest.num_classes
    teacher, student = two.build(), one.build()
    found: Distances = {}
    for share in SHARES:
        name = f"study {int(1000 * share)}"
        eps = rng.normal(0, name, rows, x0[0].numel()).view_as(x0)
        noisy = process.noisy(x0, process.step(torch.full((len(y),), share)), eps)
        x_t, t = noisy.x, noisy.level
        plain, none = teacher(x_t, t, y), teacher(x_t, t, torch.full_like(y, null))
        found[round(share, 3)] = {}
        for omega in omegas_of(one, "tcfg")[1:]:
            push = omega * (plain - none)
            off = trained(student, omega, null)(x_t, t, y) - plain - push
            found[round(share, 3)][omega] = (mean_sq(off).mean() / mean_sq(push).mean()).item()
    return found


def cells(values: Sequence[Mapping[str, float]]) -> list[str]:
    """Of all columns: the mean over seeds and half the range, if there are several."""
    found = []
    for column in COLUMNS:
        scale, digits = (100, 0) if column.startswith("fidelity") else (1, 2)
        numbers = [scale * one[column] for one in values]
        spread = (
            f" ± {(max(numbers) - min(numbers)) / 2:.{digits}f}" if len(numbers) > 1 else ""
        )
        found.append(f"{fmean(numbers):.{digits}f}{spread}")
    return found


def fid_table(scores: Mapping[str, Sequence[Scores]]) -> str:
    """The best mean FID of each way is marked."""
    rows = []
    for name, by_seed in scores.items():
        fids = {o: fmean(one[o]["fid"] for one in by_seed) for o in by_seed[0]}
        for omega in fids:
            fid, *others = cells([one[omega] for one in by_seed])
            best = omega == min(fids, key=lambda o: fids[o])
            rows.append([name, f"{float(omega):g}", f"**{fid}**" if best else fid, *others])
    return markdown(["", "omega", *COLUMNS.values()], rows)


def averaged(found: Sequence[Distances]) -> Distances:
    """The means over seeds."""
    return {
        share: {omega: fmean(one[share][omega] for one in found) for omega in found[0][share]}
        for share in found[0]
    }


def distance_table(found: Distances) -> str:
    """t / T by omega, in percent."""
    rows = [
        [f"{share:.2f}", *(f"{left:.0%}" for left in by_omega.values())]
        for share, by_omega in found.items()
    ]
    omegas = next(iter(found.values()))
    return markdown(["t / T", *(f"omega {omega:g}" for omega in omegas)], rows)


def draw(scores: Mapping[str, Sequence[Scores]], found: Distances, file: Path) -> None:
    """Mean FID over omega, and the share of the guidance that is missing over t / T."""
    fids: list[Row] = [
        {"series": way, "omega": float(o), "FID": fmean(one[o]["fid"] for one in by_seed)}
        for way, by_seed in scores.items()
        for o in by_seed[0]
    ]
    missing: list[Row] = [
        {"series": f"omega {omega:g}", "t / T": share, "missing": left}
        for share, by_omega in found.items()
        for omega, left in by_omega.items()
    ]
    panels = []
    for rows in fids, missing:
        _, x, y = rows[0]
        lines = layers(rows).mark_line(point=True)
        panels.append(Panel("", "", lines.encode(x=f"{x}:Q", y=f"{y}:Q", color="series:N")))
    file.write_bytes(Picture(file.stem, tuple(panels)).png())


def main() -> None:
    args = parse(
        __doc__,
        storage=str,
        shards="shards",
        seeds=[0, 1, 2],
        process=tuple(BASE),
        images=96_000,
        num_images=1_000,
        base="",
        stage="",
        printed=False,
        workers=0,
        picture="",
    )
    scores: dict[str, list[Scores]] = {name: [] for name in MODES}
    apart: list[Distances] = []
    for seed in args.seeds:
        found = networks(args, seed)
        apart.append(distances(found["two calls"], found["one call"], args))
        for name, mode in MODES.items():
            scores[name].append(scores_of(mode, found[name], args))
        seeds = args.seeds[: len(apart)]
        print(f"\nseeds {seeds}\n\n{fid_table(scores)}\n\n{distance_table(averaged(apart))}\n")
        if args.picture:
            draw(scores, averaged(apart), Path(args.picture))


if __name__ == "__main__":
    main()
