"""Evaluations of a run: the same bytes whoever makes them, and what follows from the files."""

import shutil
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from record_tools import training_record, write_training_record
from sampling_tools import make_run

from cbdm_scale.cluster import Finished
from cbdm_scale.config.schema import from_dict
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.evaluation.evaluator import Evaluator, evaluate_alone
from cbdm_scale.evaluation.records import METRICS, training_evaluations, training_home
from cbdm_scale.evaluation.scheduler import EvaluationScheduler
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking import NoTracker
from cbdm_scale.training.distributed import OneProcess
from cbdm_scale.training.state import drop_old_checkpoints

SEEN = 480, 960, 1440, 1920
CPU = torch.device("cpu")


class Book(NoTracker):
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
    world, book, said = OneProcess(), Book(), []
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


def test_a_process_alone_writes_the_bytes_that_the_training_workers_write(run):
    scheduler, book, said = make_scheduler(run)
    scheduler.due(480, scheduler.evaluator.load(480))
    there = training_home(run, 480).read_bytes(METRICS)
    scores = training_evaluations(run)[480].scores["1.0"]
    assert book.by_images[480]["eval/guidance_1/fid"] == scores["fid"]
    assert "480 images | FID" in said[0]
    run.remove(RunDir.EVALUATION)
    told = []
    config = config_of(run)
    evaluate_alone(CPU, 480, told.append, config=config, run=run, num_shares=1, log=said.append)
    assert said[-1].startswith("evaluating 480 images beside training on ")
    assert training_home(run, 480).read_bytes(METRICS) == there
    assert told[-1] == 1 and told == sorted(told)


def test_one_at_a_time_in_order_while_training_goes_on(run):
    scores = fids((9, 9), (8, 8), (7, 7))
    scheduler, book, _ = make_scheduler(run, Table(scores))
    for images in SEEN[:3]:
        scheduler.due(images, None)
    assert scheduler.background.began == [480] and not book.by_images and not judged(run)
    for _ in range(3):
        finish(scheduler)
    assert scheduler.background.began == [480, 960, 1440]
    assert [book.by_images[i]["eval/guidance_1/fid"] for i in SEEN[:3]] == [9, 8, 7]
    assert book.best[::2] == [(i, ("newest", "best")) for i in SEEN[:3]]
    assert book.best[1::2] == [(i, ("best-few",)) for i in SEEN[:3]]


def test_what_waits_is_evaluated_or_is_best_is_not_dropped(run):
    scheduler, _, _ = make_scheduler(run, Table(fids((5, 9), (8, 8), (7, 7))))
    scheduler.due(480, None)
    finish(scheduler)
    scheduler.due(960, None)
    scheduler.due(1440, None)
    assert scheduler.needed == {480, 960, 1440}
    drop_old_checkpoints(run, 1, scheduler.needed)
    assert len(RunDir(run).checkpoints()) == 4
    finish(scheduler)
    finish(scheduler)
    assert scheduler.needed == {480, 1440}, "the best of all, and of the few"


def test_without_room_the_training_workers_evaluate_and_always_does_not_ask(run):
    scheduler, _, _ = make_scheduler(run, Table({}, room=False))
    scheduler.due(480, scheduler.evaluator.load(480))
    assert judged(run) == {480} and not scheduler.background.began
    scheduler, _, _ = make_scheduler(run, Table({}, room=False), background="always")
    scheduler.due(960, None)
    assert judged(run) == {480} and scheduler.background.began == [960]


def test_after_a_failure_the_training_workers_make_that_one_and_all_that_follow(run):
    table = Table({480: "its process died 2 times: killed"})
    scheduler, book, said = make_scheduler(run, table)
    scheduler.due(480, None)
    scheduler.due(960, None)
    scheduler.background.ready = True
    scheduler.due(1440, scheduler.evaluator.load(1440))
    assert "evaluation of 480 images beside training failed: its process died 2 t" in said[0]
    assert judged(run) == {480, 960, 1440} and list(book.by_images) == [480, 960, 1440]


def test_the_end_waits_for_the_one_under_way_and_makes_the_rest(run):
    scheduler, book, _ = make_scheduler(run, Table(fids((1e-9, 1e-9))))
    scheduler.due(480, None)
    scheduler.due(960, None)
    scheduler.end(1920, scheduler.evaluator.load(1920))
    assert list(book.by_images) == [480, 960, 1920]
    assert judged(run) == {960, 1920}, "480 is the helper's to write"
    assert scheduler.best.num_seen == 480 and scheduler.needed == {480}


def test_a_request_to_stop_ends_the_wait_and_what_is_missing_is_made_later(run):
    scheduler, book, _ = make_scheduler(run, Table({}))
    scheduler.due(480, None)
    scheduler.due(960, None)
    asked = iter([False, True, True])
    scheduler.background.poll = lambda seconds=0.0: None  # never done
    assert not scheduler.end(1920, scheduler.evaluator.load(1920), lambda: next(asked))
    scheduler.close()
    assert not judged(run) and not book.by_images and not scheduler.background.is_busy
    scheduler, _, _ = make_scheduler(run)
    scheduler.begin(1919)
    assert scheduler.end(1920, scheduler.evaluator.load(1920))
    assert judged(run) >= {480, 960, 1920}


def test_a_request_to_stop_ends_the_last_evaluation_after_a_strength(run):
    scheduler, book, _ = make_scheduler(run, guidance=(1.0, 2.0))
    asked = iter([False, False, True])
    assert not scheduler.end(1920, scheduler.evaluator.load(1920), lambda: next(asked))
    assert list(training_evaluations(run)[1920].scores) == ["1.0"]
    assert not book.by_images, "the next start says both"
    assert scheduler.end(1920, scheduler.evaluator.load(1920))
    assert list(scheduler.scores) == ["1.0", "2.0"]


def test_the_end_does_not_wait_for_a_place(run):
    scheduler, book, _ = make_scheduler(run, Table({}, room=False), background="always")
    scheduler.due(480, None)
    background = scheduler.background
    scheduler.end(1920, scheduler.evaluator.load(1920))
    assert background.closed
    assert judged(run) == {480, 1920} and list(book.by_images) == [480, 1920]


def test_a_run_that_goes_on_evaluates_what_is_missing_and_knows_its_best(run):
    scheduler, _, _ = make_scheduler(run)
    write(run, scheduler, fids((5, 9), (8, 8)))
    write(run, scheduler, {1920: {"fid": 1.0}})
    scheduler, book, said = make_scheduler(run, Table({}))
    scheduler.begin(1440)
    assert scheduler.background.began == [1440], "and 1,920 is not reached yet"
    assert scheduler.best.num_seen == 480 and scheduler.best_few.num_seen == 960
    assert book.best == [(480, ("newest", "best")), (960, ("best-few",))]
    assert list(book.by_images) == [480, 960], "logged again: the tracker drops what it has"
    assert said == []


def test_a_damaged_checkpoint_is_named_and_left_out(run):
    run.write_bytes("checkpoints/000000000480/ema.safetensors", b"no")
    scheduler, _, said = make_scheduler(run)
    scheduler.begin(960)
    assert judged(run) == {960}
    assert "not evaluated: checkpoint" in said[0] and "000000000480 is damaged" in said[0]


def test_best_by_few_shot_fid_and_only_of_checkpoints_that_are_there(run):
    scheduler, _, _ = make_scheduler(run)
    write(run, scheduler, fids((9, 4), (8, 5), (7, 6)))
    for by, images in ("fid", 1440), ("fid_few", 480):
        scheduler, _, _ = make_scheduler(run, best_by=by)
        scheduler.begin(1440)
        assert scheduler.best.num_seen == images
    run.remove("checkpoints/000000000480")
    scheduler, _, _ = make_scheduler(run, best_by="fid_few")
    scheduler.begin(1440)
    assert scheduler.best.num_seen == 960


def test_scores_under_other_options_do_not_compare(run):
    scheduler, _, _ = make_scheduler(run)
    write(run, scheduler, fids((1, 1), (2, 2)))
    scheduler, _, _ = make_scheduler(run, num_images=20)
    scheduler.begin(960)
    assert scheduler.best is None


def test_a_lost_tail_is_said_once_logged_and_remembered_at_the_end(run):
    scheduler, book, said = make_scheduler(run, Table(fids((9, 9), (8, 10), (7, 11), (6, 12))))
    for images in SEEN:
        scheduler.due(images, None)
        finish(scheduler)
    warned = [book.by_images[i].get("eval/tail_warning") for i in SEEN]
    assert warned == [None, None, 1, 1], "no chart where there is nothing to warn of"
    assert sum(line.startswith("warning: FID of the few") for line in said) == 1
    assert len(book.words) == 1 and "few classes rose from 9.0" in book.words[0]["tail_warning"]
    few, tail = scheduler.remarks()
    assert few == f"best-few {run.path('checkpoints/000000000480')} (fid_few 9.00)"
    assert tail.startswith("tail     FID of the few classes rose from 9.0")


def test_a_copied_tail_is_said_once_and_apart_from_a_lost_one(run):
    """More near-copies than held-out images have by chance, twice in a row."""
    scheduler, book, said = make_scheduler(run, Table({}))
    shares = (0.05, 0.4), (0.5, 0.5), (0.5, 0.02)
    for images, (copies, fid_few) in zip(SEEN, shares, strict=False):
        record = training_record(images, {"1.0": {"fid": 9.0, "fid_few": fid_few}})
        made = GroupMemorisation("few", 300, 0.4, copies)
        held = GroupMemorisation("few", 300, 0.9, 0.04)
        sets = (replace(record.sets[0], memorisation=(made,)),)
        scheduler._record(images, replace(record, sets=sets, held_out_copies=(held,)))
    warned = [line for line in said if line.startswith("warning: ")]
    assert warned == [
        "warning: training images of the few classes are being copied: 50.0% of the images "
        "generated of them (at 1,440 images) lie as close to one as a copy does, 4.0% of real "
        "ones that were not trained on"
    ]
    assert [book.by_images[i].get("eval/tail_warning") for i in SEEN[:3]] == [None, None, 1]


def test_a_run_without_patience_left_says_so_once_and_again_when_it_is_resumed(run):
    table = Table(fids((9, 9), (8, 8), (8, 9), (9, 9)))
    scheduler, book, said = make_scheduler(run, table, patience=2)
    for images in SEEN:
        scheduler.due(images, None)
        finish(scheduler)
        assert bool(scheduler.ended) == (images == 1920)
    words = (
        "fid has not been below 8.00, that of 960 images, in 2 evaluations (train.patience), "
        "the last at 1,920 images"
    )
    assert said[-1] == f"ended: {words}" and {"ended": words} in book.words
    assert scheduler.remarks()[:2] == [
        f"ended    {words}",
        f"best     {run.path('checkpoints/000000000960')} (fid 8.00)",
    ]
    write(run, scheduler, table.scores | {2400: {"fid": 1.0}})
    for patience, ended in ((2, True), (3, False), (0, False)):
        scheduler, _, said = make_scheduler(run, Table({}), patience=patience)
        scheduler.begin(2400)
        assert bool(scheduler.ended) == ended
        assert said == [f"ended: {words}. A larger --train.patience, or 0, goes on."] * ended
