"""Evaluations of a run: the same bytes whoever makes them, and what follows from the files."""

import pytest
import torch
from scheduler_tools import (
    SEEN,
    Table,
    config_of,
    fids,
    finish,
    judged,
    made,  # noqa: F401
    make_scheduler,
    run,  # noqa: F401
    write,
)

from cbdm_scale.evaluation.evaluator import evaluate_alone
from cbdm_scale.evaluation.store import METRICS, training_evaluations, training_home
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.checkpoint import drop_old_checkpoints
from cbdm_scale.training.distributed import StopAsked

CPU = torch.device("cpu")


def test_a_process_alone_writes_the_bytes_that_the_training_workers_write(run):  # noqa: F811
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


def test_one_at_a_time_in_order_while_training_goes_on(run):  # noqa: F811
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


def test_what_waits_is_evaluated_or_is_best_is_not_dropped(run):  # noqa: F811
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


def test_without_room_the_training_workers_evaluate_and_always_does_not_ask(run):  # noqa: F811
    scheduler, _, _ = make_scheduler(run, Table({}, room=False))
    scheduler.due(480, scheduler.evaluator.load(480))
    assert judged(run) == {480} and not scheduler.background.began
    scheduler, _, _ = make_scheduler(run, Table({}, room=False), background="always")
    scheduler.due(960, None)
    assert judged(run) == {480} and scheduler.background.began == [960]


def test_after_a_failure_the_training_workers_make_that_one_and_all_that_follow(run):  # noqa: F811
    table = Table({480: "its process died 2 times: killed"})
    scheduler, book, said = make_scheduler(run, table)
    scheduler.due(480, None)
    scheduler.due(960, None)
    scheduler.background.ready = True
    scheduler.due(1440, scheduler.evaluator.load(1440))
    assert "evaluation of 480 images beside training failed: its process died 2 t" in said[0]
    assert judged(run) == {480, 960, 1440} and list(book.by_images) == [480, 960, 1440]


def test_the_end_waits_for_the_one_under_way_and_makes_the_rest(run):  # noqa: F811
    scheduler, book, _ = make_scheduler(run, Table(fids((1e-9, 1e-9))))
    scheduler.due(480, None)
    scheduler.due(960, None)
    scheduler.end(1920, scheduler.evaluator.load(1920))
    assert list(book.by_images) == [480, 960, 1920]
    assert judged(run) == {960, 1920}, "480 is the helper's to write"
    assert scheduler.best.num_seen == 480 and scheduler.needed == {480}


def test_a_request_to_stop_ends_the_wait_and_what_is_missing_is_made_later(run):  # noqa: F811
    scheduler, book, _ = make_scheduler(run, Table({}))
    scheduler.due(480, None)
    scheduler.due(960, None)
    asked = iter([False, True])
    scheduler.background.poll = lambda seconds=0.0: None  # never done
    scheduler.evaluator.stopped = lambda: next(asked)
    with pytest.raises(StopAsked):
        scheduler.end(1920, scheduler.evaluator.load(1920))
    scheduler.close()
    assert not judged(run) and not book.by_images and not scheduler.background.is_busy
    scheduler, _, _ = make_scheduler(run)
    scheduler.begin(1919)
    scheduler.end(1920, scheduler.evaluator.load(1920))
    assert judged(run) >= {480, 960, 1920}


def test_a_request_to_stop_ends_the_last_evaluation_and_its_done_strengths_are_kept(run):  # noqa: F811
    scheduler, book, _ = make_scheduler(run, guidance=(1.0, 2.0))
    first, home = scheduler.evaluator, training_home(run, 1920)
    first.stopped = first.references.stopped = lambda: home.exists(METRICS)
    with pytest.raises(StopAsked):
        scheduler.end(1920, first.load(1920))
    assert list(training_evaluations(run)[1920].scores) == ["1.0"]
    assert not book.by_images, "the next start says both"
    scheduler, _, _ = make_scheduler(run, guidance=(1.0, 2.0))
    scheduler.end(1920, first.load(1920))
    assert list(scheduler.scores) == ["1.0", "2.0"]


def test_what_waits_when_the_training_workers_are_asked_to_stop_still_waits(run):  # noqa: F811
    """So its checkpoints are not dropped before the next start finds them."""
    scheduler, _, _ = make_scheduler(run, Table({480: "killed"}))
    scheduler.due(480, None)
    scheduler.due(960, None)
    scheduler.background.ready = True
    references = scheduler.evaluator.references
    references.stopped = lambda: judged(run) == {480}
    with pytest.raises(StopAsked):
        scheduler.due(1440, scheduler.evaluator.load(1440))
    assert judged(run) == {480} and scheduler.needed == {480, 960, 1440}


def test_the_end_does_not_wait_for_a_place(run):  # noqa: F811
    scheduler, book, _ = make_scheduler(run, Table({}, room=False), background="always")
    scheduler.due(480, None)
    background = scheduler.background
    scheduler.end(1920, scheduler.evaluator.load(1920))
    assert background.closed
    assert judged(run) == {480, 1920} and list(book.by_images) == [480, 1920]


def test_a_run_that_goes_on_evaluates_what_is_missing_and_knows_its_best(run):  # noqa: F811
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


def test_a_damaged_checkpoint_is_named_and_left_out(run):  # noqa: F811
    run.write_bytes("checkpoints/000000000480/ema.safetensors", b"no")
    scheduler, _, said = make_scheduler(run)
    scheduler.begin(960)
    assert judged(run) == {960}
    assert "not evaluated: checkpoint" in said[0] and "000000000480 is damaged" in said[0]


def test_best_by_few_shot_fid_and_only_of_checkpoints_that_are_there(run):  # noqa: F811
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


def test_scores_under_other_options_do_not_compare(run):  # noqa: F811
    scheduler, _, _ = make_scheduler(run)
    write(run, scheduler, fids((1, 1), (2, 2)))
    scheduler, _, _ = make_scheduler(run, num_images=20)
    scheduler.begin(960)
    assert scheduler.best is None
