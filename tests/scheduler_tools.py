"""An evaluation scheduler on a run with four checkpoints, and a helper that looks scores up."""

import shutil
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from record_tools import training_record, write_training_record
from sampling_tools import make_run

from cbdm_scale.cluster.background import Finished
from cbdm_scale.config.schema import from_dict
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.evaluation.evaluator import Evaluator
from cbdm_scale.evaluation.scheduler import EvaluationScheduler
from cbdm_scale.evaluation.store import METRICS, training_home
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.storage.folder import Storage
from cbdm_scale.tracking.tracker import Tracker
from cbdm_scale.training.distributed import World

SEEN = 480, 960, 1440, 1920


class Book(Tracker):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.by_images, self.best, self.words = defaultdict(dict), [], []

    def scalars(self, images, values):
        self.by_images[images] |= values

    def model(self, images, checkpoint, aliases):
        self.best.append((images, tuple(aliases)))

    def tags(self, values):
        self.words.append(values)


class Table:
    """A helper that looks the scores up; a job is under way until ``finish``."""

    def __init__(self, scores, room=True):
        self.scores, self.room, self.began, self.ready = scores, room, [], False
        self.is_busy, self.closed = False, False

    def has_room(self):
        return self.room

    def start(self, job):
        self.job, self.is_busy, self.ready = job, True, False
        self.began.append(job)

    def place(self):
        return "here:1" if self.room else ""

    def poll(self, seconds=0.0):
        if not (self.ready or seconds):
            return None
        self.is_busy = False
        found = self.scores[self.job]
        failed = isinstance(found, str)
        if failed:
            return Finished(self.job, None, found)
        return Finished(self.job, training_record(self.job, {"1.0": found}))

    def progress(self):
        return "half"

    def close(self):
        self.is_busy, self.closed = False, True


@pytest.fixture(scope="module")
def made(tmp_path_factory, digits_root):
    """A run with four checkpoints, judged by a classifier that was never trained."""
    folder = tmp_path_factory.mktemp("judged")
    torch.manual_seed(0)
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=10)
    (folder / "net.safetensors").write_bytes(save_classifier(net))
    make_run(folder, digits_root, SEEN)
    return folder


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs")
    return Storage(str(tmp_path / "runs" / "noise"))


def config_of(run, **options):
    tree = run.read_json("config.json")
    tree.pop("image")
    config = from_dict(tree)
    extractor = f"classifier:{run.local_path().parent / 'net.safetensors'}"
    return replace(
        config,
        train=replace(config.train, total_images=4800, eval_every=480),
        eval=replace(config.eval, extractor=extractor, **options),
    )


def make_scheduler(run, helper=None, patience=0, **options):
    config = config_of(run, **options)
    config = replace(config, train=replace(config.train, patience=patience))
    manifest = read_manifest(config.data.root, config.dataset)
    world, book, said = World(), Book(), []
    evaluator = Evaluator(config, manifest, LinearSchedule(config.diffusion), world, run)
    found = EvaluationScheduler(config, evaluator, world, run, book, said.append, helper)
    return found, book, said


def judged(run):
    return {images for images in SEEN if training_home(run, images).exists(METRICS)}


def fids(*pairs):
    return {
        images: {"fid": float(fid), "fid_few": float(few)}
        for images, (fid, few) in zip(SEEN, pairs, strict=False)
    }


def write(run, scheduler, scores):
    for images, values in scores.items():
        write_training_record(run, images, {"1.0": values}, scheduler.evaluator.key)


def finish(scheduler):
    scheduler.background.ready = True
    scheduler.poll()
