"""A comparison from its first check to its results.

<cluster.storage>/compare/<name>/costs.json        of a step, by method
<cluster.storage>/compare/<name>/features/         of the real images
<cluster.storage>/compare/<name>/<phase>/          networks/, sets/, and what was found
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path

import torch

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.devices import open_device, sees_gpu
from cbdm_scale.metrics.extractors import recipes_of
from cbdm_scale.runs.launch import find_reference_warning, prepare_data
from cbdm_scale.storage.checks import check_name
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.lease import lease
from cbdm_scale.storage.wording import shorten
from tune.comparison.cost import measure, ratios
from tune.comparison.feature_space import FeatureSpace
from tune.comparison.findings import find, write_findings
from tune.comparison.network_job import NetworkJob, SetsJob, do_network
from tune.comparison.networks import network_name
from tune.comparison.options import CompareOptions
from tune.comparison.page import PAGE, write_page
from tune.comparison.processes import run_jobs
from tune.comparison.protocol import Phase, PhaseName, Protocol, images_at, with_rows
from tune.comparison.sets import HALVES

COSTS = "costs.json"
SEED = "{seed}"
"""In data.root: every seed has a data set of its own, such as another draw of the tail."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done, on which data, where."""

    protocol: Protocol
    phase: Phase
    name: PhaseName
    """Of the phase."""
    folder: Storage
    """Of the comparison."""
    home: Storage
    """Of its phase."""
    manifest: Manifest
    """Of the first seed's data set; those of the others have its classes and counts."""
    configs: dict[str, Config]
    """Row -> configuration, without a seed."""
    networks: dict[str, Config]
    """The same of the rows that networks are trained for."""
    root: str
    """data.root, with ``SEED`` where each seed has its own."""
    on_gpu: bool

    @property
    def caution(self) -> str:
        """What makes the scores mean less than they seem to, or ""."""
        return find_reference_warning(self.configs[self.protocol.control], self.manifest)

    def config(self, row: str, seed: int) -> Config:
        """Of a row's sets for one seed."""
        return self._of_seed(self.configs[row], row, seed)

    def network(self, row: str, seed: int) -> Config:
        """Of the network that they are made with."""
        trained = self.protocol.network(row)
        return self._of_seed(self.networks[trained], trained, seed)

    def _of_seed(self, config: Config, row: str, seed: int) -> Config:
        root = root_of(self.root, seed)
        name = network_name(row, seed)
        return with_options(config, {"seed": seed, "name": name, "data.root": root})

    def stops(self, row: str, cost: float) -> dict[int, int]:
        """Compute -> training images of a row.

        Of one whose exposure or learning rate changes at shares of its run only the last:
        before, it is another method.
        """
        stops = self.protocol.stops(row, self.phase)
        if self.configs[row].is_scheduled:
            stops = stops[-1:]
        return {stop: self._images(row, stop, cost) for stop in stops}

    def guide(self, row: str, cost: float) -> int:
        """Training images of a row's guide; 0 of none."""
        stop = self.protocol.rows[row].guide
        return self._images(row, stop, cost) if stop else 0

    def _images(self, row: str, stop: int, cost: float) -> int:
        try:
            return images_at(stop, cost, self.configs[row].train.batch_size)
        except ValueError as error:
            raise ValueError(f"rows.{row}: {error}") from None


def root_of(root: str, seed: int) -> str:
    """Where the data set of a seed is."""
    return root.replace(SEED, str(seed))


def make_plan(options: CompareOptions, protocol: Protocol, *, write: bool) -> Plan:
    """Find and check everything; ValueError says what does not fit."""
    protocol = replace(protocol, extractor=options.extractor or protocol.extractor)
    phase = with_rows(protocol.phase(options.phase), options.rows, options.seeds)
    name = options.name or Path(options.protocol).stem
    check_name("name", name)
    folder = Storage(options.cluster.storage).child("compare").child(name)
    _check_fresh(protocol, options.phase, phase, folder)
    home = folder.child(options.phase)
    if unknown := set(phase.rows) - set(protocol.rows):
        raise ValueError(
            f"rows ({shorten(sorted(unknown))}) are not in the protocol, which has "
            f"{shorten(list(protocol.rows))}."
        )
    root = root_of(options.data.root, phase.seeds[0])
    here = {
        "data.root": root,
        "data.num_workers": 0,
        "cluster.storage": home.child("networks").url,
        "cluster.workers": 0,
        "eval.extractor": protocol.extractors[0],
        "eval.num_images": protocol.num_images,
    }
    names = protocol.names(phase)
    trained = dict.fromkeys(protocol.network(row) for row in names)
    found = {row: protocol.config(row, root) for row in dict.fromkeys((*names, *trained))}
    every = {row: with_options(config, here) for row, config in found.items()}
    configs = {row: every[row] for row in names}
    control = configs[protocol.control]
    manifest = prepare_data(control, write=write)
    for other in dict.fromkeys(root_of(options.data.root, seed) for seed in phase.seeds):
        config = with_options(control, {"data.root": other})
        draw = prepare_data(config, write=write)
        if (draw.class_names, draw.counts) != (manifest.class_names, manifest.counts):
            raise ValueError(
                f"data.root ({options.data.root}): {draw.name} in {other} and in {root} differ "
                "in their classes or in how many images these have. Prepare both alike, or "
                "leave {seed} out."
            )
        if write:
            _check_extractors(protocol.extractors, config, draw)
    whole = HALVES * manifest.num_classes
    if protocol.num_images % whole:
        raise ValueError(
            f"num_images ({protocol.num_images}) must be a multiple of {whole}, so that both "
            f"halves have all {manifest.num_classes} classes equally often. Try "
            f"{-(-protocol.num_images // whole) * whole}."
        )
    on_gpu = options.cluster.device != "cpu" and sees_gpu()
    if options.cluster.device == "gpu" and not on_gpu:
        raise ValueError("cluster.device (gpu): there is none here. Try --cluster.device cpu.")
    return Plan(
        protocol=protocol,
        phase=phase,
        name=options.phase,
        folder=folder,
        home=home,
        manifest=manifest,
        configs=configs,
        networks={row: every[row] for row in trained},
        root=options.data.root,
        on_gpu=on_gpu,
    )


def _check_fresh(protocol: Protocol, name: PhaseName, phase: Phase, folder: Storage) -> None:
    """ValueError if a phase has a seed of the other one, by the protocol or by its networks."""
    other: PhaseName = "screen" if name == "confirm" else "confirm"
    where = "screen" if other == "screen" else "confirmation"
    trained = folder.child(other).child("networks").list()

    def is_taken(seed: int) -> bool:
        named = seed in protocol.phase(other).seeds
        return named or any(run.endswith(network_name("", seed)) for run in trained)

    if both := [seed for seed in phase.seeds if is_taken(seed)]:
        free = islice((seed for seed in count() if not is_taken(seed)), len(phase.seeds))
        raise ValueError(
            f"seeds ({shorten(both)}) are of the {where} too: the networks that chose the rows "
            f"would confirm their own choice. Try --seeds {' '.join(map(str, free))}."
        )


def _check_extractors(names: Sequence[str], config: Config, manifest: Manifest) -> None:
    """ValueError before anything is trained unless each is there and takes these images."""
    size = manifest.image_size
    blank = torch.zeros(1, manifest.channels, size, size, dtype=torch.uint8)
    for recipe in recipes_of(names, config.eval, config.data.root, manifest):
        recipe.load("cpu")(blank)


@dataclass(frozen=True)
class _Cost:
    """A step of a row's networks, in steps of the control."""

    row: str
    cost: float


def find_costs(plan: Plan) -> dict[str, float]:
    """Row -> cost of a step: the protocol's, or measured once and then kept."""
    given = {row: plan.protocol.rows[row].cost for row in plan.networks}
    control = plan.protocol.control
    given[control] = 1.0
    keys = {row: config.run_name for row, config in plan.networks.items()}
    there = plan.folder.exists(COSTS)
    known: dict[str, _Cost] = plan.folder.read_json(COSTS, dict[str, _Cost]) if there else {}
    missing = [row for row, cost in given.items() if cost is None and keys[row] not in known]
    if missing:
        print(f"measuring the cost of a step of {', '.join(missing)}", flush=True)
        timed = {row: plan.networks[row] for row in (control, *missing)}
        device = open_device(plan.on_gpu)
        found = ratios(measure(timed, plan.manifest, device), control)
        known |= {keys[row]: _Cost(row, round(found[row], 3)) for row in missing}
        plan.folder.write_json(COSTS, {key: asdict(cost) for key, cost in known.items()})
    costs = {
        row: known[keys[row]].cost if cost is None else cost for row, cost in given.items()
    }
    return {row: costs[plan.protocol.network(row)] for row in plan.configs}


def run_comparison(options: CompareOptions, protocol: Protocol) -> int:
    """Train, make the sets, choose, and write what was found; gives the exit status."""
    torch.set_num_threads(1)
    plan = make_plan(options, protocol, write=True)
    name = plan.folder.url.rpartition("/")[2]
    plan.home.make_folder()
    plan.home.check_writable()
    if plan.caution:
        print(f"warning: {plan.caution}", flush=True)
    with lease(plan.folder, f"comparison {name} is being made"):
        costs = find_costs(plan)
        jobs = make_jobs(plan, costs)
        return _run(plan, jobs, costs, processes(options, plan))


def make_jobs(plan: Plan, costs: dict[str, float]) -> list[NetworkJob]:
    """A job a network: of the first seed those of all methods, then of the next."""
    protocol, jobs = plan.protocol, []
    for seed in plan.phase.seeds:
        config = plan.config(protocol.control, seed)
        spaces = FeatureSpace.prepare(config, protocol.extractors)
        of_network: dict[str, list[SetsJob]] = {}
        for row in plan.configs:
            sets = SetsJob(
                row=row,
                config=plan.config(row, seed),
                stops=plan.stops(row, costs[row]),
                guide=plan.guide(row, costs[row]),
                strengths=protocol.strengths(row, plan.phase),
                spaces=spaces,
            )
            of_network.setdefault(protocol.network(row), []).append(sets)
        jobs += [
            NetworkJob(config=plan.network(row, seed), sets=tuple(sets), on_gpu=plan.on_gpu)
            for row, sets in of_network.items()
        ]
    return jobs


def processes(options: CompareOptions, plan: Plan) -> int:
    """How many at a time; 0 is this process alone."""
    there = torch.cuda.device_count() if plan.on_gpu else len(os.sched_getaffinity(0))
    number = options.parallel or there
    return 0 if number == 1 else number


def _run(plan: Plan, jobs: Sequence[NetworkJob], costs: dict[str, float], parallel: int) -> int:
    """Do the jobs; the table after every seed that all methods have."""
    ended: list[SetsJob] = []
    failed, began = 0, time.perf_counter()
    print(f"{len(jobs)} networks in {plan.home.url}, {parallel or 1} at a time", flush=True)
    for number, (job, reason) in enumerate(run_jobs(do_network, jobs, parallel), 1):
        minutes = (time.perf_counter() - began) / 60
        word = f"failed: {reason}" if reason else "done"
        print(
            f"{job.config.run_name} {word} ({number} of {len(jobs)}, {minutes:.1f} min)",
            flush=True,
        )
        failed += bool(reason)
        ended += () if reason else job.sets
        seed = [one for one in ended if one.config.seed == job.config.seed]
        if not reason and len(seed) == len(plan.configs):
            findings = find(plan.protocol, ended, costs, plan.caution)
            print(f"\n{write_findings(findings, plan.home)}\n", flush=True)
    if ended:
        findings = find(plan.protocol, ended, costs, plan.caution)
        write_page(findings, plan.protocol, plan.phase, plan.name, plan.home)
        print(f"report  {plan.home.path(PAGE)}")
    if failed:
        print(f"{failed} networks failed; the same command goes on with them")
    return 1 if failed else 0
