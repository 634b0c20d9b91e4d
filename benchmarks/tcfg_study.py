"""Figure 12 in miniature: one call a step against two, over omega, from one network.

    python -m benchmarks.tcfg_study --storage FOLDER [--images 72000] [--picture FILE]
    python -m benchmarks.tcfg_study --storage FOLDER --process edm

Trains the digits' preset tcfg by the train command, one worker; under EDM its preset edm with a
small DDPM++ and trainable guidance. Then, for each seed, FID over omega, by two
predictions a step (CFG) and by one (TCFG), and how far one call is from two at the same noisy
image: ||one - two||^2 as a share of ||two - unguided||^2, over omega and t / T. Started
again, it goes on where it was. Prints two Markdown tables.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.curves import Panel, save_png
from benchmarks.study import COLUMNS, Study, arguments, cells
from benchmarks.timing import markdown
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

STRENGTHS = 0.1, 0.2, 0.4, 0.6, 0.8, 1.0
OMEGAS = 0.0, *STRENGTHS
SHARES = 0.0205, 0.1005, 0.2505, 0.5005, 0.7505, 0.9505
"""t / T, the middle of a step of DDPM."""
ROWS = {
    "ddpm": "--preset tcfg",
    "edm": "--preset edm --loss.tcfg --loss.omega-max 1.0 --backbone ddpmpp --model.channels 16"
    " --model.multipliers 1 2 --model.num-blocks 1",
}
MODES: dict[str, GuidanceMode] = {"CFG, two calls": "cfg", "TCFG, one call": "tcfg"}
Distances = dict[float, list[tuple[float, float]]]
"""t / T -> for each omega above 0, means of ||one - two||^2 and ||two - unguided||^2."""


def open_network(run: Storage) -> tuple[nn.Module, Config, Manifest]:
    pretrained = load_pretrained(run.url)
    config = pretrained.config
    return pretrained.build(), config, read_manifest(config.data.root, config.dataset)


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
    config = replace(config, eval=replace(evaluated, guidance=OMEGAS))
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
) -> Distances:
    """Means over images of the test split."""
    index = open_index(config.data.root, config.dataset, "eval")
    reader = ShardReader(config.data.root, config.dataset, index)
    rows = rng.permutation(0, "study", index.num_samples)[:count]
    x0 = to_model_range(torch.stack([torch.from_numpy(reader.load(i)) for i in rows.tolist()]))
    y = torch.from_numpy(index.labels[rows.numpy()].copy())
    process, null = build_process(config.noise), manifest.num_classes
    found: Distances = {}
    for share in SHARES:
        name = f"study {int(1000 * share)}"
        eps = rng.normal(0, name, rows, x0[0].numel()).view_as(x0)
        noisy = process.noisy(x0, process.step(torch.full((len(y),), share)), eps)
        x_t, t = noisy.x, noisy.level
        plain, none = net(x_t, t, y), net(x_t, t, torch.full_like(y, null))

        pairs = []
        for omega in STRENGTHS:
            push = omega * (plain - none)
            one = trained(net, omega, null)(x_t, t, y)
            error = mean_sq(one - plain - push).mean().item()
            pairs.append((error, mean_sq(push).mean().item()))
        found[round(share, 3)] = pairs
    return found


def fid_table(scores: dict[str, Scores]) -> str:
    """The best FID of each way is marked."""
    rows = []
    for name, by_omega in scores.items():
        best = min(OMEGAS, key=lambda omega: by_omega[str(omega)]["fid"])
        for omega in OMEGAS:
            fid, *others = cells([by_omega[str(omega)]])
            rows.append([name, f"{omega:g}", f"**{fid}**" if omega == best else fid, *others])
    return markdown(["", "omega", *COLUMNS.values()], rows)


def distance_table(found: Distances) -> str:
    rows = [
        [f"{share:.2f}", *(f"{error:.1e} ({error / size:.0%})" for error, size in pairs)]
        for share, pairs in found.items()
    ]
    return markdown(["t / T", *(f"omega {omega:g}" for omega in STRENGTHS)], rows)


def draw(scores: dict[str, Scores], found: Distances, file: Path) -> None:
    fids = {n: [(o, by[str(o)]["fid"]) for o in OMEGAS] for n, by in scores.items()}
    shares = {
        f"omega {omega:g}": [(t, pairs[i][0] / pairs[i][1]) for t, pairs in found.items()]
        for i, omega in enumerate(STRENGTHS)
    }
    left = Panel(title="", x="omega", y="FID", series=fids)
    size = "||one - two||² / ||two - unguided||²"
    right = Panel(title="", x="t / T", y=size, series=shares, log_y=True)
    save_png([left, right], 2, file)


def main() -> None:
    parser = arguments(__doc__, images=72_000)
    parser.add_argument("--process", choices=list(ROWS), default="ddpm")
    parser.add_argument("--picture", type=Path, help="PNG file for both curves")
    args = parser.parse_args()
    study = Study(
        name="tcfg study",
        args=args,
        rows=ROWS,
        omegas=(0.0,),
        images=lambda row: int(args.images),
    )
    for seed in args.seeds:
        study.train(args.process, seed)
        run = study.run(args.process, seed)
        net, config, manifest = open_network(run)
        found = distances(net, config, manifest)
        print(distance_table(found), flush=True)
        scores = {
            n: scores_of(mode, net, config, manifest, run, args) for n, mode in MODES.items()
        }
        print("\n" + fid_table(scores))
        if args.picture:
            draw(scores, found, args.picture)


if __name__ == "__main__":
    main()
