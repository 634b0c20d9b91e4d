"""What a run says of its few classes: lost, copied, less varied; and when it ends for that."""

from dataclasses import replace

from record_tools import training_record
from scheduler_tools import SEEN, Table, fids, finish, made, make_scheduler, run, write  # noqa: F401

from cbdm_scale.metrics.memorisation import GroupMemorisation


def test_a_lost_tail_is_said_once_logged_and_remembered_at_the_end(run):  # noqa: F811
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


def test_a_copied_tail_is_said_once_and_apart_from_a_lost_one(run):  # noqa: F811
    """More near-copies than held-out images have by chance, twice in a row."""
    scheduler, book, said = make_scheduler(run, Table({}))
    shares = (0.05, 0.4), (0.5, 0.5), (0.5, 0.02)
    for images, (copies, fid_few) in zip(SEEN, shares, strict=False):
        record = training_record(images, {"1.0": {"fid": 9.0, "fid_few": fid_few}})
        found = GroupMemorisation("few", 300, 0.4, copies)
        held = GroupMemorisation("few", 300, 0.9, 0.04)
        sets = (replace(record.sets[0], memorisation=(found,)),)
        scheduler._record(images, replace(record, sets=sets, held_out_copies=(held,)))
    warned = [line for line in said if line.startswith("warning: ")]
    assert warned == [
        "warning: training images of the few classes are being copied: 50.0% of the images "
        "generated of them (at 1,440 images) lie as close to one as a copy does, 4.0% of real "
        "ones that were not trained on"
    ]
    assert [book.by_images[i].get("eval/tail_warning") for i in SEEN[:3]] == [None, None, 1]


def test_few_classes_that_lose_variety_are_said_and_keep_their_best_checkpoint(run):  # noqa: F811
    """Though FID of the few is a little lower where the variety is gone."""
    pairs = (9.0, 0.9), (8.9, 0.6), (8.8, 0.55), (8.0, 0.6)
    table = Table(
        {
            images: {"fid": 9.0, "fid_few": few, "recall_few": recall}
            for images, (few, recall) in zip(SEEN, pairs, strict=True)
        }
    )
    scheduler, book, said = make_scheduler(run, table, patience=2, best_by="fid_few")
    for images in SEEN:
        scheduler.due(images, None)
        finish(scheduler)
        assert scheduler.best_few.num_seen == (480 if images < 1920 else 1920)
    assert [book.by_images[i].get("eval/tail_warning") for i in SEEN] == [None, None, 1, 0]
    assert book.by_images[960]["eval/guidance_1/recall_few"] == 0.6
    (warned,) = [line for line in said if line.startswith("warning: ")]
    assert warned.startswith(
        "warning: the few classes lose variety: their recall fell from 0.90"
    )
    words = (
        "fid_few has not been below 9.00, that of 480 images, but with less variety, in 2 "
        "evaluations (train.patience), the last at 1,440 images"
    )
    assert f"ended: {words}" in said and {"ended": words} in book.words
    again, _, _ = make_scheduler(run, best_by="fid_few")
    write(run, again, table.scores)
    again.begin(1440)
    assert again.best.num_seen == again.best_few.num_seen == 480


def test_a_run_without_patience_left_says_so_once_and_again_when_it_is_resumed(run):  # noqa: F811
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
