"""Figure 12 in miniature: guidance by one call a step against two, over omega.

    python -m benchmarks.tcfg_study --storage FOLDER [--process edm]

A network of the digits is trained by Equations 32 and 33, and guided by two predictions a step
and by one: FID over omega, and how far one call is from two at the same noisy image: ||one -
two||^2 as a share of ||two - unguided||^2, over omega and t / T. --images train it,
--num-images are made for each FID, --workers train (0: this process). Started again, it goes on
where it was. Prints two Markdown tables.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import torch

from benchmarks.commands import train_command
from benchmarks.timing import markdown, parse
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.results import Scores
from cbdm_scale.losses.term import mean_sq
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork
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
PRINTED = {
    "ddpm": "--preset tcfg",
    "edm": f"{SMALL_EDM} --loss.tcfg --loss.omega-max 1.0",
}
MODES: dict[str, GuidanceMode] = {"two calls": "cfg", "one call": "tcfg"}
COLUMNS = {
    score + group: group.removeprefix("_") or title
    for score, title in (("fid", "FID"), ("fidelity", "label kept"))
    for group in ("", "_many", "_medium", "_few")
}
Distances = dict[float, dict[float, float]]
"""t / T -> omega -> mean ||one - two||^2 over mean ||two - unguided||^2."""


def train(args: argparse.Namespace) -> PretrainedNetwork:
    """The network, trained to its end by the train command."""
    options = (
        f"{PRINTED[args.process]} --train.total-images {args.images} --seed {args.seed} "
        "--eval.extractor none --train.sample-every 0 --train.eval-every 0 "
        f"--train.save-every 24000 --cluster.workers {args.workers} "
        '--track.experiment "tcfg study"'
    )
    name = f"printed-{args.process}-seed{args.seed}"
    words = train_command(options, shards=args.shards, storage=args.storage, name=name)
    print(shlex.join(words), flush=True)
    status = subprocess.run(words).returncode
    found = load_pretrained(Storage(args.storage).child(name).url) if not status else None
    if found is None or (found.num_seen or 0) < found.config.train.total_images:
        sys.exit(status or "stopped: the same command goes on from here")
    return found


def scores_of(
    mode: GuidanceMode, network: PretrainedNetwork, args: argparse.Namespace
) -> Scores:
    """FID and label fidelity at every strength that it knows; kept in <storage>/study."""
    config, omegas = network.config, omegas_of(network, mode)
    how = {"extractor": "classifier", "guidance": omegas, "guidance_mode": mode}
    config = replace(
        config,
        eval=replace(config.eval, num_images=args.num_images, **how),
        train=replace(config.train, precision="fp32"),
    )
    folder = Storage(args.storage).child(f"study/{network.name}-{mode}")
    manifest, process = read_manifest(args.shards, config.dataset), build_process(config.noise)
    evaluator = Evaluator(config, manifest, process, World(), folder)
    return evaluator.evaluate(network.build(), network.num_seen or 0, omegas).scores


def omegas_of(network: PretrainedNetwork, mode: GuidanceMode) -> tuple[float, ...]:
    """The strengths that are looked at."""
    return tuple(o for o in OMEGAS if mode == "cfg" or o <= network.spec.omega_max)


@torch.no_grad()
def distances(
    network: PretrainedNetwork, args: argparse.Namespace, count: int = 600
) -> Distances:
    """Over images of the test split."""
    config, manifest = network.config, read_manifest(args.shards, network.config.dataset)
    root = config.data.root
    index = open_index(root, config.dataset, "eval")
    reader = ShardReader(root, config.dataset, index)
    rows = rng.permutation(0, "study", index.num_samples)[:count]
    x0 = to_model_range(torch.stack([torch.from_numpy(reader.load(i)) for i in rows.tolist()]))
    y = torch.from_numpy(index.labels[rows.numpy()].copy())
    process, null, net = build_process(config.noise), manifest.num_classes, network.build()
    found: Distances = {}
    for share in SHARES:
        name = f"study {int(1000 * share)}"
        eps = rng.normal(0, name, rows, x0[0].numel()).view_as(x0)
        noisy = process.noisy(x0, process.step(torch.full((len(y),), share)), eps)
        x_t, t = noisy.x, noisy.level
        plain, none = net(x_t, t, y), net(x_t, t, torch.full_like(y, null))
        found[round(share, 3)] = {}
        for omega in omegas_of(network, "tcfg")[1:]:
            push = omega * (plain - none)
            off = trained(net, omega, null)(x_t, t, y) - plain - push
            found[round(share, 3)][omega] = (mean_sq(off).mean() / mean_sq(push).mean()).item()
    return found


def cells(values: Mapping[str, float]) -> list[str]:
    """Of all columns."""
    shares = {c: 100 if c.startswith("fidelity") else 1 for c in COLUMNS}
    return [f"{k * values[c]:.{0 if k > 1 else 2}f}" for c, k in shares.items()]


def fid_table(scores: Mapping[str, Scores]) -> str:
    """The best FID of each way is marked."""
    rows = []
    for name, found in scores.items():
        for omega in found:
            fid, *others = cells(found[omega])
            best = omega == min(found, key=lambda o: found[o]["fid"])
            rows.append([name, f"{float(omega):g}", f"**{fid}**" if best else fid, *others])
    return markdown(["", "omega", *COLUMNS.values()], rows)


def distance_table(found: Distances) -> str:
    """t / T by omega, in percent."""
    rows = [
        [f"{share:.2f}", *(f"{left:.0%}" for left in by_omega.values())]
        for share, by_omega in found.items()
    ]
    omegas = next(iter(found.values()))
    return markdown(["t / T", *(f"omega {omega:g}" for omega in omegas)], rows)


def main() -> None:
    args = parse(
        __doc__,
        storage=str,
        shards="shards",
        seed=0,
        process=tuple(PRINTED),
        images=96_000,
        num_images=1_000,
        workers=0,
    )
    network = train(args)
    apart = distance_table(distances(network, args))
    scores = {name: scores_of(mode, network, args) for name, mode in MODES.items()}
    print(f"\n{fid_table(scores)}\n\n{apart}\n")


if __name__ == "__main__":
    main()
