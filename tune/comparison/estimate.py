"""What a comparison would do, and how long it takes on this machine: --dry-run."""

import statistics
import time

import torch

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.devices import open_device
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.metrics.extractors import recipes_of
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import network_spec
from tune.comparison.cost import FEWEST, measure, ratios
from tune.comparison.findings import markdown
from tune.comparison.options import CompareOptions
from tune.comparison.protocol import Protocol, with_rows
from tune.comparison.run import Plan, make_plan, processes, root_of

CALLS = 5
"""Network calls that are timed."""


def dry_run(options: CompareOptions, protocol: Protocol) -> None:
    """Print what would be done, and how long it takes here. Nothing is written."""
    torch.set_num_threads(1)
    seed = with_rows(protocol.phase(options.phase), options.rows, options.seeds).seeds[0]
    read_manifest(root_of(options.data.root, seed), protocol.dataset)
    plan = make_plan(options, protocol, write=False)
    phase, device = plan.phase, open_device(plan.on_gpu)
    found = measure(plan.networks, plan.manifest, device, FEWEST)
    seconds = {row: statistics.median(one[row] for one in found) for row in plan.networks}
    costs, rows, total = ratios(found, protocol.control), [], 0.0
    untrained = set(plan.networks)
    for row in plan.configs:
        network = protocol.network(row)
        cost = protocol.rows[network].cost or costs[network]
        stops = plan.stops(row, cost)
        train = len(phase.seeds) * max(stops.values()) * seconds[network]
        train *= network in untrained  # the first row that has it trains it
        untrained.discard(network)
        sample = len(phase.seeds) * len(stops) * sampling_s(plan, row, device)
        total += train + sample
        images = ", ".join(f"{n:,}" for n in stops.values())
        hours = (f"{part / 3600:.2f}" for part in (train, sample))
        rows.append([row, f"{cost:.2f}", images, *hours])
    at_once = max(1, processes(options, plan))
    heads = ["row", "cost", "images at the stops", "hours of training", "hours of sampling"]
    print(f"{options.phase} of {protocol.dataset} in {plan.home.url}")
    print(f"seeds {' '.join(map(str, phase.seeds))}")
    if plan.caution:
        print(f"warning: {plan.caution}")
    print(f"\n{markdown(heads, rows)}\n")
    print(
        f"{total / 3600:.1f} hours of a {'GPU' if plan.on_gpu else 'core'}, "
        f"{total / 3600 / at_once:.1f} with {at_once} networks at a time"
    )
    print(f"{gigabytes(plan):.1f} GB of sets are kept")


def sampling_s(plan: Plan, row: str, device: torch.device) -> float:
    """Seconds of a network's sets at one stop."""
    config, strengths = plan.configs[row], plan.protocol.strengths(row, plan.phase)
    once = call_s(config, plan.manifest, device) * config.sample.calls
    twice = config.eval.guidance_mode == "cfg"
    passes = sum(2 if omega and twice else 1 for omega in strengths)
    return passes * once * plan.protocol.num_images


def call_s(config: Config, manifest: Manifest, device: torch.device) -> float:
    """Seconds of a network's call, for each image."""
    spec = network_spec(config, manifest)
    net = sampling_net(build(spec).to(device).eval(), device, config.train.precision)
    size = config.eval.chunk_size or 100
    x = torch.randn(size, *spec.image_shape, device=device)
    y = torch.arange(size, device=device) % manifest.num_classes
    level = build_process(config.noise, device).step(torch.full((size,), 0.5, device=device))
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        net(x, level, y)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) / size


def gigabytes(plan: Plan) -> float:
    """Of the images and features of all sets, in every space."""
    config, names = plan.configs[plan.protocol.control], plan.protocol.extractors
    recipes = recipes_of(names, config.eval, config.data.root, plan.manifest)
    features = sum(recipe.load("cpu").dim for recipe in recipes)
    spec = network_spec(config, plan.manifest)
    image = spec.channels * spec.image_size**2 + 4 * features + 16
    phase, rows = plan.phase, plan.protocol
    each = [len(rows.stops(r, phase)) * len(rows.strengths(r, phase)) for r in plan.configs]
    sets = len(phase.seeds) * sum(each)
    return sets * plan.protocol.num_images * image / 1e9
