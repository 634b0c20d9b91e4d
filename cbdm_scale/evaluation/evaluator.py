"""Evaluations during training: a grid of samples, and scores by class group.

Connects the plain parts of sampling and evaluation to a run: configuration, ranks, storage.
Images are counted in shares, one for each training worker, and the shares summed in their
order: the scores have the same bits from all ranks together as from a process that makes every
share by itself (``evaluate_alone``), on CPUs, and with train.deterministic on GPUs.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from cbdm_scale.cluster.options import Log, to_stdout
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import Strength, as_text, class_strengths, in_order
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.devices import make_deterministic
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_cyclic
from cbdm_scale.diffusion.process import Process
from cbdm_scale.evaluation.pace import Pace
from cbdm_scale.evaluation.references import Check, References
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.evaluation.set_metrics import compute_training_metrics
from cbdm_scale.evaluation.store import (
    read_evaluation,
    training_evaluations,
    training_home,
    write_evaluation,
)
from cbdm_scale.generation.chunk_size import chunk_memory, usual_chunk_size
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.metrics.extractors import recipe_of
from cbdm_scale.metrics.features import Extractor
from cbdm_scale.metrics.groups import GroupScores
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.sampling.grid import GRID_COLUMNS, grid_order, grid_png
from cbdm_scale.sampling.sampler import Sampler, chunks
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import World, never


class Evaluator:
    """All ranks call its methods together; rank 0 gets pictures, all ranks get scores."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        process: Process,
        world: World,
        run: Storage,
        num_shares: int | None = None,
        log: Log | None = None,
        stopped: Callable[[], bool] = never,
    ):
        """num_shares: of all ranks; None is one each, more need a world of one process.

        log: of rank 0, shows how far long work is; None shows nothing. stopped: whether this
        rank is asked to stop; then what makes images raises StopAsked on every rank.
        """
        self.stopped = stopped
        self.pace = Pace(world.size, None if world.rank else log)
        self.num_shares = num_shares or world.size
        assert world.size in (1, self.num_shares), "a share a rank, or all on one"
        self.config, self.manifest, self.world, self.run = config, manifest, world, run
        self.process = process
        self.on_chunk: Callable[[int], None] = lambda num_images: None
        """Called with the number of images of every chunk that is made."""

        self.extractor: Extractor | None = None
        if config.eval.extractor != "none":
            recipe = recipe_of(config.eval.extractor, config.eval, config.data.root, manifest)
            self.extractor = recipe.load(world.device)
            about = self.extractor, self.pace, self.num_shares, self.stopped
            self.references = References(config, manifest, world, run, *about)

    def _sampling_net(self, net: nn.Module) -> Net:
        return sampling_net(net, self.world.device, self.config.train.precision)

    def generate(
        self,
        net: Net,
        numbers: Tensor,
        omega: Strength,
        share: int,
        num_shares: int,
        weak: Net | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(numbers (n,), labels (n,), images (n, C, H, W) uint8) of every chunk of a share.

        numbers (N,) of all images, whose labels are class by class in turn. The images are the
        same whatever the number of shares. weak: the network that autoguidance moves away from.
        """
        options, device, made = self.config.eval, self.world.device, []
        spec = network_spec(self.config, self.manifest)
        size = options.chunk_size or usual_chunk_size(spec, device.type == "cuda")
        sampler = Sampler(
            shape=spec.image_shape,
            null_label=spec.null_label,
            process=self.process,
            config=self.config.sample,
            seed=self.config.eval_seed,
            chunk_size=size,
            guidance_mode=options.guidance_mode,
        )
        about = self.manifest.groups, self.manifest.counts["train"]
        by_class = torch.tensor(class_strengths("eval.guidance", omega, *about))
        for places in chunks(len(numbers), size, share, num_shares):
            chunk = numbers[places]
            y = class_cyclic(chunk, self.manifest.num_classes)
            own = by_class[y].to(device) if isinstance(omega, str) else omega
            with chunk_memory("eval.chunk_size", len(chunk)):
                x = sampler.generate(net, chunk.to(device), y.to(device), own, weak)
                made.append((chunk, y, to_uint8(x).cpu()))
            self.on_chunk(len(chunk))
            self.pace.count(len(chunk))
        return made

    def grid(self, net: nn.Module) -> bytes | None:
        """The PNG of the first ten images of a class (rank 0; None elsewhere).

        Rows by class frequency; of many classes only those that it shows are made.
        """
        world, counts = self.world, self.manifest.counts["train"]
        order, omega = grid_order(counts), self.config.eval.guidance[0]
        shown = torch.tensor(sorted(order))
        numbers = (torch.arange(GRID_COLUMNS)[:, None] * len(counts) + shown).flatten()
        shows = self.pace.showing(len(numbers), "images of the grid")
        with world.monitored_barrier(self.stopped) as check, shows:
            called = checked(self._sampling_net(net), check)
            made = self.generate(called, numbers, omega, world.rank, world.size)
        everybody = [chunk for rank in world.gather(made) for chunk in rank]
        if world.rank:
            return None
        labels = torch.cat([y for _, y, _ in everybody])
        images = torch.cat([x for _, _, x in everybody])
        return grid_png(images, labels, order, self.manifest.class_names, counts)

    @property
    def key(self) -> str:
        """Digest of what scores depend on besides the network: others do not compare."""
        assert self.extractor is not None
        options = {
            "num_images": self.config.eval.num_images,
            "sample": self.config.sample.to_dict(),
            "extractor": self.extractor.fingerprint,
            "dataset": self.manifest.fingerprint,
            "recall_images": self.config.eval.num_stored,
            "guidance_mode": self.config.eval.guidance_mode,
            "seed": self.config.eval.seed,
        } | ({"weighed": True} if self.references.weigh else {})
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]

    def history(self, omega: Strength) -> dict[int, Evaluation]:
        """The run's evaluations at this strength that compare: images seen -> evaluation."""
        return {
            num_seen: found
            for num_seen, found in training_evaluations(self.run).items()
            if found.key == self.key and omega in [one.omega for one in found.sets]
        }

    def evaluate(
        self, net: nn.Module, num_seen: int, omegas: tuple[Strength, ...]
    ) -> Evaluation:
        """FID and label fidelity of the network after so many images, for each strength.

        What is on record is not computed again.
        """
        home = training_home(self.run, num_seen)
        known = self.world.gather(read_evaluation(home))[0]
        sets: dict[Strength, SetResult] = {}
        if known and known.key == self.key:
            sets = {found.omega: found for found in known.sets}
        called = self._sampling_net(net)
        for omega in omegas:
            if omega not in sets:
                sets[omega] = self._set_result(called, omega)
        found = Evaluation(
            id=home.url.rpartition("/")[2],
            run=self.config.run_name,
            checkpoint=self.run.path(RunDir.checkpoint(num_seen)),
            trained_images=num_seen,
            dataset=self.manifest.name,
            dataset_fingerprint=self.manifest.fingerprint,
            class_names=tuple(self.manifest.class_names),
            extractor=self.config.eval.extractor,
            extractor_fingerprint=self.extractor.fingerprint if self.extractor else "",
            resize=self.config.eval.resize,
            num_real=int(self.references.real().num_images.sum()),
            held_out_copies=self.references.held_out_copies(),
            sets=tuple(sets[omega] for omega in sorted(sets, key=in_order)),
            weighed=bool(self.references.weigh),
            key=self.key,
            made_by="training",
        )
        if self.world.rank == 0:
            write_evaluation(home, found)
        asked = tuple(one for one in found.sets if one.omega in omegas)
        return replace(found, sets=asked)

    def _set_result(self, net: Net, omega: Strength) -> SetResult:
        """What is computed at one strength, by all ranks together."""
        num_stored = self.config.eval.num_stored

        counts = self.manifest.counts["train"]
        mode = self.config.eval.guidance_mode
        self.references.load()
        real, found = self.references.real(), None
        with self.pace.showing(
            self.config.eval.num_images, f"images at omega {as_text(omega)}"
        ):
            count = partial(self._fake_scores, net, omega)
            fake = self.references.total(count, num_stored)
            # Roots of matrices take a while.
            with self.world.monitored_barrier(self.stopped) as check:
                if self.world.rank == 0:
                    copies = self.references.copies(fake)
                    check()
                    near = self.references.manifold(fake)
                    check()
                    found = compute_training_metrics(
                        real, fake, counts, omega, mode, copies, near
                    )
        result: SetResult = self.world.gather(found)[0]
        return result

    def _fake_scores(self, net: Net, omega: Strength, share: int, check: Check) -> GroupScores:
        """Scores of a share of the generated images, quantised as a file would be.

        The features of the first ``num_stored`` are stored.
        """
        assert self.extractor is not None
        options = self.config.eval
        scores = self.references.empty(options.num_stored)
        every = torch.arange(options.num_images)
        made = self.generate(checked(net, check), every, omega, share, self.num_shares)
        for numbers, labels, images in made:
            check()
            with chunk_memory("eval.chunk_size", len(images)):
                scores.add(self.extractor(images), labels, numbers)
        return scores

    def load(self, num_seen: int) -> nn.Module:
        """The averaged network of a checkpoint; ValueError if it is damaged."""
        checkpoint = self.run.path(RunDir.checkpoint(num_seen))
        net = load_pretrained(checkpoint).build(self.world.device)
        if self.config.train.channels_last:
            net = net.to(memory_format=torch.channels_last)
        return net


def checked(net: Net, check: Check) -> Net:
    """The network, but ``check`` comes before each of its calls."""

    def call(
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        check()
        return net(x, level, y, omega, augment)

    return call


def evaluate_alone(
    device: torch.device,
    num_seen: int,
    on_progress: Callable[[float], None],
    *,
    config: Config,
    run: Storage,
    num_shares: int,
    log: Callable[[str], None] = to_stdout,
) -> Evaluation:
    """What ``evaluate`` gives of a checkpoint on ``num_shares`` ranks, by one process."""
    manifest = read_manifest(config.data.root, config.dataset)
    if config.train.deterministic:
        make_deterministic(device)
    world = World(str(device))
    evaluator = Evaluator(
        config, manifest, build_process(config.noise, device), world, run, num_shares
    )
    made = 0

    def count(num_images: int) -> None:
        nonlocal made
        made += num_images
        on_progress(made / config.eval.num_images / len(config.eval.at_intervals))

    place = f"{socket.gethostname()}:{os.getpid()}"
    log(f"evaluating {num_seen:,} images beside training on {place}")
    evaluator.on_chunk = count
    return evaluator.evaluate(evaluator.load(num_seen), num_seen, config.eval.at_intervals)
