"""Figure 12 in miniature: one call a step against two, over omega, from one network.

    python -m benchmarks.tcfg_study --storage FOLDER [--images 72000] [--picture FILE]
    python -m benchmarks.tcfg_study --storage FOLDER --process edm

Trains the digits' preset tcfg by the train command, one worker; under EDM its preset edm with a
small DDPM++ and trainable guidance. Then FID over omega, by two
predictions a step (CFG) and by one (TCFG), and how far one call is from two at the same noisy
image: ||one - two||^2 as a share of ||two - unguided||^2, over omega and t / T. Started
again, it goes on where it was. Prints two Markdown tables.
"""

import argparse
import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.digits_study import COLUMNS
from cbdm_scale import train
from cbdm_scale.config.schema import Config
from cbdm_scale.data.index import open_index
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.results import Scores
from cbdm_scale.losses.term import mean_sq
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.sampling.guidance import trained
from cbdm_scale.sampling.options import GuidanceMode
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import OneProcess
from cbdm_scale.training.state import list_checkpoints

OMEGAS = 0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0
SHARES = 0.0205, 0.1005, 0.2505, 0.5005, 0.7505, 0.9505
"""t / T, the middle of a step of DDPM."""
ROWS = {
    "ddpm": ("--preset", "tcfg"),
    "edm": (
        *("--preset", "edm", "--loss.tcfg", "--loss.omega-max", "1.0"),
        *("--backbone", "ddpmpp", "--model.channels", "16", "--model.multipliers", "1", "2"),
        *("--model.num-blocks", "1"),
    ),
}
KIND = {"ddpm": "tcfg", "edm": "edm-tcfg"}
MODES: dict[str, GuidanceMode] = {"CFG, two calls": "cfg", "TCFG, one call": "tcfg"}


def train_one(run: Storage, args: argparse.Namespace) -> None:
    last = f"checkpoints/{args.images:012d}"
    if last in list_checkpoints(run):
        return
    words = [
        *("--dataset", "digits_lt", *ROWS[args.process]),
        *("--name", run.url.rpartition("/")[2], "--seed", str(args.seed)),
        *("--data.root", args.shards, "--cluster.storage", args.storage),
        *("--cluster.workers", "1", "--train.total-images", str(args.images)),
        *("--train.save-every", "24000", "--train.sample-every", "0"),
        *("--track.experiment", "tcfg study", "--eval.omegas", "0.0"),
    ]
    print("python -m cbdm_scale.train", *words, flush=True)
    status = train.main(words)
    if status or last not in list_checkpoints(run):
        sys.exit(status or "stopped: the same command goes on from here")


def open_network(run: Storage) -> tuple[nn.Module, Config, Manifest]:
    origin = load_pretrained(run.url)
    config = origin.config
    return origin.build(), config, read_manifest(config.data.root, config.dataset)


def scores_of(
    mode: GuidanceMode,
    net: nn.Module,
    config: Config,
    manifest: Manifest,
    run: Storage,
    args: argparse.Namespace,
) -> Scores:
    """FID and label fidelity at every strength; kept in <run>/study/<mode>."""
    evaluated = replace(config.eval, guidance_mode=mode, num_images=args.num_images)
    config = replace(config, eval=replace(evaluated, omegas=OMEGAS))
    folder = run.child(f"study/{mode}")
    evaluator = Evaluator(config, manifest, build_process(config.noise), OneProcess(), folder)
    found: Scores = {}
    for omega in OMEGAS:
        found |= evaluator.evaluate(net, args.images, (omega,)).scores
        print(f"{mode} omega {omega:g}: FID {found[str(omega)]['fid']:.2f}", flush=True)
    return found


@torch.no_grad()
def distances(
    net: nn.Module, config: Config, manifest: Manifest, count: int = 600
) -> dict[float, list[tuple[float, float]]]:
    """By t / T and omega > 0: means over images of ||one - two||^2 and ||two - unguided||^2."""
    index = open_index(config.data.root, config.dataset, "eval")
    reader = ShardReader(config.data.root, config.dataset, index)
    rows = rng.permutation(0, "study", index.num_samples)[:count]
    x0 = to_model_range(torch.stack([torch.from_numpy(reader.load(i)) for i in rows.tolist()]))
    y = torch.from_numpy(index.labels[rows.numpy()].copy())
    process, null = build_process(config.noise), manifest.num_classes
    found: dict[float, list[tuple[float, float]]] = {}
    for share in SHARES:
        name = f"study {int(1000 * share)}"
        eps = rng.normal(0, name, rows, x0[0].numel()).view_as(x0)
        noisy = process.noisy(x0, process.step(torch.full((len(y),), share)), eps)
        x_t, t = noisy.x, noisy.level
        plain, none = net(x_t, t, y), net(x_t, t, torch.full_like(y, null))

        def pair(
            omega: float,
            x_t: Tensor = x_t,
            t: Tensor = t,
            plain: Tensor = plain,
            none: Tensor = none,
        ) -> tuple[float, float]:
            push = omega * (plain - none)
            one = trained(net, omega, null)(x_t, t, y)
            return mean_sq(one - plain - push).mean().item(), mean_sq(push).mean().item()

        found[round(share, 3)] = [pair(omega) for omega in OMEGAS if omega]
    return found


def fid_table(scores: dict[str, Scores]) -> str:
    lines = ["| | omega | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    for name, by_omega in scores.items():
        best = min(OMEGAS, key=lambda omega: by_omega[str(omega)]["fid"])
        for omega in OMEGAS:
            values = by_omega[str(omega)]
            cells = [
                f"{100 * values[c]:.0f}" if c.startswith("fidelity") else f"{values[c]:.2f}"
                for c in COLUMNS
            ]
            if omega == best:
                cells[0] = f"**{cells[0]}**"
            lines.append(f"| {name} | {omega:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def distance_table(found: dict[float, list[tuple[float, float]]]) -> str:
    strengths = [omega for omega in OMEGAS if omega]
    lines = ["| t / T | " + " | ".join(f"omega {omega:g}" for omega in strengths) + " |"]
    lines.append("|---" * (len(strengths) + 1) + "|")
    for share, pairs in found.items():
        cells = [f"{error:.1e} ({error / size:.0%})" for error, size in pairs]
        lines.append(f"| {share:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(
    scores: dict[str, Scores], found: dict[float, list[tuple[float, float]]], file: str
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, by_omega in scores.items():
        left.plot(OMEGAS, [by_omega[str(o)]["fid"] for o in OMEGAS], "o-", label=name)
    left.set(xlabel="omega", ylabel="FID")
    left.legend()
    for i, omega in enumerate(o for o in OMEGAS if o):
        shares = [pairs[i][0] / pairs[i][1] for pairs in found.values()]
        right.plot(list(found), shares, "o-", label=f"omega {omega:g}")
    right.set(xlabel="t / T", ylabel="||one - two||² / ||two - unguided||²", yscale="log")
    right.legend()
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--storage", required=True)
    parser.add_argument("--shards", default="shards")
    parser.add_argument("--images", type=int, default=72_000)
    parser.add_argument("--num-images", type=int, default=1_000, help="generated, for each FID")
    parser.add_argument("--process", choices=list(ROWS), default="ddpm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="", help="PNG file for both curves")
    args = parser.parse_args()
    run = Storage(args.storage).child(f"{KIND[args.process]}-seed{args.seed}")
    train_one(run, args)
    net, config, manifest = open_network(run)
    found = distances(net, config, manifest)
    print(distance_table(found), flush=True)
    scores = {
        name: scores_of(mode, net, config, manifest, run, args) for name, mode in MODES.items()
    }
    print("\n" + fid_table(scores))
    if args.picture:
        draw(scores, found, args.picture)


if __name__ == "__main__":
    main()
