"""One rank of a run: builds the parts, hands them to the train loop, reports what comes out.

Everything that only one process may do (printing, MLflow, files) is done by rank 0.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from cbdm_scale import __version__
from cbdm_scale.cluster.background import BackgroundWorker
from cbdm_scale.cluster.connect import in_cluster
from cbdm_scale.cluster.options import Log, ReportCheckpoint, to_stdout
from cbdm_scale.cluster.preemption import PreemptionMonitor
from cbdm_scale.cluster.progress import SILENCE_S, ProgressBar, ProgressLine
from cbdm_scale.cluster.stop import StopFile
from cbdm_scale.config.schema import Config
from cbdm_scale.data.augment import augmentation
from cbdm_scale.data.cache import open_cache
from cbdm_scale.data.index import open_index
from cbdm_scale.data.loader import PlannedImages, load_batches
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.data.resample import make_plan
from cbdm_scale.data.shards import ShardReader
from cbdm_scale.devices import make_deterministic, needs_memory
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Process
from cbdm_scale.evaluation.evaluator import Evaluator, evaluate_alone
from cbdm_scale.evaluation.pace import images_to_make
from cbdm_scale.evaluation.scheduler import EvaluationScheduler
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.coral import PROJECTION_WIDTH
from cbdm_scale.models.build import build
from cbdm_scale.models.embeddings import set_trainable
from cbdm_scale.pretrained.network import network_spec
from cbdm_scale.runs.checkpoint_manager import CheckpointManager
from cbdm_scale.runs.logged_metrics import FOLLOWS, logged
from cbdm_scale.runs.teacher import open_teacher
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.tracker import MlflowTracker, Tracker
from cbdm_scale.training.averaged_weights import keep_averages
from cbdm_scale.training.checkpoint import Progress, TrainState
from cbdm_scale.training.distributed import StopAsked, World, gather_errors, never
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.gradients import DeviceMemoryError, RunError
from cbdm_scale.training.loop import Callbacks, TrainInputs, is_grid_due, train
from cbdm_scale.training.power_ema import start_averages
from cbdm_scale.training.resume import resume

LAST_WORDS_S = 20.0
"""Seconds at the end of a run for what MLflow has not got yet."""
STOPPED_S = 3.0
"""The same of a run that was asked to stop: it goes on later, and sends the rest then."""
EMPTIER = "Try a GPU that nothing else uses, or a smaller network"
"""Where no option makes what is on a GPU smaller."""


def run_rank(
    world: World,
    report_checkpoint: ReportCheckpoint,
    log: Log = to_stdout,
    *,
    config: Config,
    tracking_uri: str,
    run_id: str,
) -> dict[str, Any]:
    """Train from where the run stands to its end; plain data that says how it went.

    What the user can mend comes back as {"error": text} on every rank, and is not retried.
    """
    run = Storage(config.cluster.storage).child(config.run_name)
    tracker = Tracker()
    if world.rank == 0 and run_id:
        tracker = MlflowTracker(run, tracking_uri, run_id, log)
    try:
        with needs_memory("training and what is beside it", EMPTIER):
            outcome = Run(config, world, run, tracker, report_checkpoint, log).go()
    except (RunError, ValueError) as error:
        outcome = {"error": gather_errors(world, str(error))}
    stopped = outcome.get("how") == "stopped"
    outcome["unsent"] = tracker.close(STOPPED_S if stopped else LAST_WORDS_S)
    outcome["why"] = tracker.why
    return outcome


class Run:
    """The parts of a run on one rank."""

    def __init__(
        self,
        config: Config,
        world: World,
        run: Storage,
        tracker: Tracker,
        report_checkpoint: ReportCheckpoint,
        print_line: Log,
    ):
        self.config, self.world, self.folder = config, world, run
        self.tracker, self.print_line = tracker, print_line
        if config.train.deterministic:
            make_deterministic(world.device)
        end = config.train.total_images
        self.shown = ProgressBar(end, "images", print_line, every_s=SILENCE_S, left=self._left)
        """Of rank 0: a line where ``report`` has nothing to say for a minute."""
        self.manifest = data = read_manifest(config.data.root, config.dataset)
        self.process = build_process(config.noise, world.device)
        with world.monitored_barrier(), needs_memory("the network and its averages", EMPTIER):
            self.state = build_state(config, self.manifest, world.device)
        self.started = time.perf_counter()
        about = {"cbdm_scale": __version__, "dataset": data.fingerprint, "seed": config.seed}
        keep = config.train.keep_checkpoints
        self.checkpoints = CheckpointManager(
            run, world, tracker, report_checkpoint, about, keep, lambda: self.scheduler.needed
        )

    def log(self, text: str) -> None:
        """Print a line, on rank 0 alone."""
        if self.world.rank == 0:
            self.shown.log(text)

    def go(self) -> dict[str, Any]:
        """Train to the end, or until stopped; plain data that says how it went."""
        stop = StopFile(self.folder) if self.world.rank == 0 else None
        try:
            teacher = self._open(stop.is_set if stop else never)
            how = self._train(teacher)
        finally:
            if stop:
                stop.close()
        return self._outcome(how)

    def _open(self, stopped: Callable[[], bool]) -> Net | None:
        """Take up where the run stands; the teacher that it has."""
        config, world, state = self.config, self.world, self.state
        where = world.gather(f"{socket.gethostname()}:{os.getpid()}")
        self.log(f"workers (host:pid) {' '.join(where)}")
        teacher = open_teacher(config, self.folder, state.net, world, self.log)
        tuned = bool(config.init_sha256)
        found = resume(self.folder, state, world, self.log, fine_tunes=tuned)
        if found:
            self.checkpoints.resume_from(state.progress.num_seen)
        about = config, self.manifest, self.process, world, self.folder
        with world.monitored_barrier(), needs_memory("the network of features", EMPTIER):
            self.evaluator = Evaluator(*about, log=self.print_line, stopped=stopped)
        beside = self._make_background_worker()
        self.scheduler = EvaluationScheduler(
            config, self.evaluator, world, self.folder, self.tracker, self.print_line, beside
        )
        self.began_at = self.shown.start = state.progress.num_seen
        return teacher

    def _train(self, teacher: Net | None) -> str:
        """Make what is missing, train, make what follows; "finished", or "stopped"."""
        config, world, state = self.config, self.world, self.state
        scheduler, stopped = self.scheduler, self.evaluator.stopped
        notice = PreemptionMonitor(self.print_line)

        def preemption_save_due() -> bool:
            if world.rank:
                return False
            self.shown.reach(state.progress.num_seen)
            return notice.is_due(self.checkpoints.check())

        callbacks = Callbacks(
            report=self.report,
            sample=self.sample,
            evaluate=self.evaluate,
            save=self.checkpoints.save,
            keep_averages=self.keep_averages,
            stop=lambda: stopped() or scheduler.ended != "",
            save_now=preemption_save_due,
            log=self.log,
        )
        how, seen = "", state.progress.num_seen
        try:
            if 0 < seen < config.train.total_images and is_grid_due(seen, config.train):
                self._sample_if_missing()
            scheduler.begin(seen)
            inputs = make_inputs(config, self.manifest, self.process, world, seen, teacher)
            with nullcontext() if world.rank else self.shown:
                how = train(state, inputs, config.train, world, callbacks)
            asked, ended = world.gather((stopped(), scheduler.ended))[0]
            if how == "stopped" and ended and not asked:
                how = "finished"  # there was no hope of a better checkpoint
            if how == "finished":
                self._finish()
            self.checkpoints.wait()
        except StopAsked:  # in images that are made before or after training
            how = "stopped"
        except DeviceMemoryError:
            raise
        except RunError:
            self.checkpoints.save(state)
            self.checkpoints.wait()
            raise
        finally:
            self.checkpoints.close()
            if how != "finished":
                scheduler.close()
        return how

    def _finish(self) -> None:
        """What follows the last step."""
        state = self.state
        self.keep_averages(state)
        self.checkpoints.save(state)
        self.checkpoints.wait()
        if self.config.train.sample_every:
            self._sample_if_missing()
        self.scheduler.end(state.progress.num_seen, state.ema.net)
        self.checkpoints.prune()
        self.tracker.model(state.progress.num_seen, self.checkpoints.newest_path, ["newest"])

    def _sample_if_missing(self) -> None:
        """The grid of the state; it may be that a run was stopped while it was made."""
        file = RunDir.grid(self.state.progress.num_seen)
        if not any(self.world.gather(self.world.rank == 0 and self.folder.exists(file))):
            self.sample(self.state)

    def _make_background_worker(self) -> BackgroundWorker | None:
        """What evaluates beside training, on rank 0, with threads and device as here."""
        config, world = self.config, self.world
        alone = not config.cluster.workers or not in_cluster()
        if world.rank or config.eval.background == "never" or alone:
            return None
        run, log = self.folder, self.print_line
        work = partial(evaluate_alone, config=config, run=run, num_shares=world.size, log=log)
        cluster = config.cluster
        gpus = cluster.gpus_beside if world.device.type == "cuda" else 0.0
        cpus = 0 if config.eval.background == "always" else cluster.cpus_per_worker
        return BackgroundWorker(work, cpus, cluster.threads, gpus, self.print_line)

    def _left(self, train_s: float) -> str:
        """What is left: so much training, and the grids and evaluations that are to come."""
        waits, seen = self.scheduler.background is None, self.state.progress.num_seen
        later = images_to_make(self.config, self.manifest.num_classes, seen, waits=waits)
        return self.evaluator.pace.left(train_s, later)

    def report(self, state: TrainState, numbers: dict[str, float]) -> None:
        """Every log_every images: one line to read, and the numbers to MLflow."""
        progress, total = state.progress, self.config.train.total_images
        if self.world.rank:
            return
        self.scheduler.poll()
        self.tracker.scalars(progress.num_seen, logged(numbers, progress, self.manifest.groups))
        rate = numbers["images_per_second"]
        left = self._left((total - progress.num_seen) / max(rate, 1e-9))
        terms = " ".join(
            f"{name.removeprefix('loss/')} {value:.4f}"
            for name, value in numbers.items()
            if name.startswith("loss/") and name not in ("loss/total", *FOLLOWS)
        )
        text = (
            f"{progress.num_seen:>9,}/{total:,} images | {rate:.0f}/s | {terms} | "
            f"waiting for data {numbers['data_wait']:.1%} | {left}"
        )
        self.log(ProgressLine(text, progress.num_seen, total))

    def sample(self, state: TrainState) -> None:
        """The grid of samples, rows by class frequency."""
        png = self.evaluator.grid(state.ema.net)
        if png:
            self.folder.write_bytes(RunDir.grid(state.progress.num_seen), png)
            self.tracker.image(state.progress.num_seen, "samples", png)

    def evaluate(self, state: TrainState) -> None:
        """What is evaluated is the checkpoint, once it is whole."""
        self.checkpoints.wait()
        self.scheduler.due(state.progress.num_seen, state.ema.net)

    def keep_averages(self, state: TrainState) -> None:
        """The averages as they are now, for those of other widths; every rank comes here."""
        if state.posthoc:
            with self.world.monitored_barrier():
                if self.world.rank == 0:
                    keep_averages(self.folder, state.posthoc, state.progress.num_seen)

    def _outcome(self, how: str) -> dict[str, Any]:
        scores = self.scheduler.scores
        return {
            "how": how,
            "progress": asdict(self.state.progress),
            "resumed_at": self.began_at,
            "seconds": time.perf_counter() - self.started,
            "scores": scores,
            "best_omega": min(scores, key=lambda o: scores[o]["fid"], default=None),
            "remarks": self.scheduler.remarks(),
            "images_a_class": json.loads(json.dumps(self.manifest.counts["train"])),
        }


def build_state(config: Config, manifest: Manifest, device: torch.device) -> TrainState:
    """Fresh weights by the seed, their average, the optimiser and zeroed counters."""
    torch.manual_seed(rng.make_key(config.seed, "initial weights")[0])
    net = build(network_spec(config, manifest))
    if config.loss.coral:
        net.add_projection(PROJECTION_WIDTH)
    net = net.to(device)
    if config.train.channels_last:
        net = net.to(memory_format=torch.channels_last)
    ema = EMA(net, config.train.ema_halflife, config.train.ema_ramp)
    learning = set_trainable(net, config.train.trainable)
    optimizer = torch.optim.Adam(learning, lr=config.train.lr, fused=True)
    progress = Progress(substitutions=[0] * manifest.num_classes)
    posthoc = start_averages(net, wanted=config.train.posthoc_every > 0)
    return TrainState(net, ema, optimizer, progress, posthoc)


def make_inputs(
    config: Config,
    manifest: Manifest,
    process: Process,
    world: World,
    start: int,
    teacher: Net | None = None,
) -> TrainInputs:
    """What a rank learns from what, and from which teacher, from image ``start`` on."""
    index = open_index(config.data.root, config.dataset, "train")
    plan = make_plan(index, config.seed, config.exposure)
    open_at_once = max(8, plan.num_streams + 1)
    root, cache = config.data.root, open_cache(config.data)
    reader = ShardReader(root, config.dataset, index, max_open=open_at_once, cache=cache)
    counts = manifest.counts["train"]
    images = PlannedImages(reader, plan, augmentation(config.data, config.seed, counts))
    batches = load_batches(
        images,
        config.data,
        start=start,
        batch_size=config.train.batch_size,
        rank=world.rank,
        world_size=world.size,
    )
    about = torch.tensor(counts), config.seed, config.train.batch_size
    loss, draw = build_loss(config.loss, process, *about, teacher)

    def allowed_bad(planned: int) -> float:
        return config.data.max_bad * max(planned, plan.num_samples)

    return TrainInputs(loss, draw, batches, config.seed, allowed_bad)
