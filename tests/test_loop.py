import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from training_tools import (
    BATCH,
    CONFIG,
    assert_same,
    fresh_state,
    make_batch,
    make_batches,
    make_callbacks,
    make_inputs,
    tensors,
)

from cbdm_scale.data.loader import Substitution
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import DeviceMemoryError, RunError
from cbdm_scale.training.loop import is_due, train
from cbdm_scale.training.options import per_rank


class Threads:
    """Two ranks as threads of this process; the gradients stay each rank's own."""

    device = torch.device("cpu")

    def __init__(self, rank, board, barrier):
        self.rank, self.size, self.board, self.barrier = rank, len(board), board, barrier
        self.wrap, self.no_sync = lambda net: net, World().no_sync

    def gather(self, value):
        self.board[self.rank] = value
        self.barrier.wait(60)
        values = list(self.board)
        self.barrier.wait(60)
        return values

    def sum(self, values):
        return sum(self.gather(values))

    def begin_sum(self, values):
        return lambda: self.sum(values)


def on_two_ranks(work):
    """work(world) on both ranks; what each returned or raised."""
    board, barrier = [None, None], threading.Barrier(2)

    def guarded(rank):
        try:
            return work(Threads(rank, board, barrier))
        except RunError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(guarded, range(2)))


def run(state, config=CONFIG, inputs=None, **callbacks):
    inputs = inputs or make_inputs(make_batches(state.progress.num_seen))
    return train(state, inputs, config, World(), make_callbacks(**callbacks))


def test_a_run_shows_the_images_it_was_asked_for_and_learns():
    state, losses = fresh_state(), []
    more = replace(CONFIG, total_images=60 * BATCH)
    how = run(state, more, report=lambda state, numbers: losses.append(numbers["loss/dm"]))
    assert how == "finished"
    assert state.progress.num_seen == 60 * BATCH and state.progress.steps == 60
    assert len(losses) == 60 and sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_finished_run_does_nothing():
    state = fresh_state()
    run(state)
    before = tensors(state)
    assert run(state, save=lambda state: pytest.fail("saved")) == "finished"
    assert_same(tensors(state), before)


def test_a_longer_total_continues():
    whole, parts = fresh_state(), fresh_state()
    run(whole)
    run(parts, replace(CONFIG, total_images=4 * BATCH))
    run(parts)
    assert parts.progress == whole.progress
    assert_same(tensors(parts), tensors(whole))


def test_a_stop_request_saves_and_stops():
    state, saved, asked = fresh_state(), [], itertools.count()
    how = run(
        state,
        stop=lambda: next(asked) == 3,
        save=lambda state: saved.append(state.progress.num_seen),
    )
    assert how == "stopped"
    assert saved == [3 * BATCH] == [state.progress.num_seen]
    assert run(state) == "finished"


def test_a_stop_request_to_one_rank_stops_all_at_the_same_image():
    def work(world):
        state = fresh_state()
        batches = make_batches(rank=world.rank, size=2)
        stop = lambda: world.rank == 1 and state.progress.num_seen == 2 * BATCH  # noqa: E731
        how = train(state, make_inputs(batches), CONFIG, world, make_callbacks(stop=stop))
        return how, state.progress.num_seen

    assert on_two_ranks(work) == [("stopped", 2 * BATCH)] * 2


@pytest.mark.parametrize(
    ("schedule", "then"),
    [("constant", [1] * 7), ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])],
)
def test_learning_rate_rises_over_the_warm_up_and_then_follows_its_schedule(schedule, then):
    rates = []
    run(
        fresh_state(),
        replace(CONFIG, warmup_images=4 * BATCH, lr_schedule=schedule),
        report=lambda state, numbers: rates.append(numbers["lr"] / CONFIG.lr),
    )
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, *then][:10])


def test_everything_happens_when_its_images_are_reached():
    happened = []
    run(
        fresh_state(),
        replace(
            CONFIG,
            log_every=5 * BATCH,
            sample_every=4 * BATCH,
            eval_every=3 * BATCH,
            save_every=7 * BATCH,
        ),
        report=lambda state, numbers: happened.append(("report", state.progress.steps)),
        sample=lambda state: happened.append(("sample", state.progress.steps)),
        evaluate=lambda state: happened.append(("eval", state.progress.steps)),
        save=lambda state: happened.append(("save", state.progress.steps)),
    )
    assert happened == [
        *(("save", 3), ("eval", 3), ("sample", 4), ("report", 5), ("save", 6), ("eval", 6)),
        *(("save", 7), ("sample", 8), ("save", 9), ("eval", 9), ("report", 10)),
    ]


@pytest.mark.parametrize(("every", "grids"), [(0, []), (1_000 * BATCH, [2])])
def test_an_early_look_has_a_grid_unless_there_are_none(every, grids):
    happened = []
    run(
        fresh_state(),
        replace(CONFIG, sample_every=every, eval_at=(2 * BATCH - 1,)),
        sample=lambda state: happened.append(("sample", state.progress.steps)),
        evaluate=lambda state: happened.append(("eval", state.progress.steps)),
    )
    assert happened == [*(("sample", n) for n in grids), ("eval", 2)]


def test_intervals_that_the_batch_does_not_divide_are_due_when_crossed():
    state, crossed = fresh_state(), []
    for images in range(BATCH, 10 * BATCH + 1, BATCH):
        state.progress.num_seen = images
        if is_due(state.progress.num_seen, CONFIG, 20):
            crossed.append(images)
    assert crossed == [24, 40, 64, 80]
    assert not is_due(state.progress.num_seen, CONFIG, 0)


def damaged(label, count=1):
    found = [Substitution(image, label, "gone") for image in range(count)]
    return make_batch(torch.arange(BATCH), found)


def test_substitutions_are_counted_by_class_and_named():
    state, said = fresh_state(), []
    batches = itertools.chain([damaged(1), damaged(2, count=2)], make_batches())
    inputs = make_inputs(batches, allowed_bad=lambda planned: 3.0)
    run(state, inputs=inputs, log=said.append)
    assert state.progress.substitutions == [0, 1, 2]
    assert said[0] == "damaged: image 0 of the plan, gone" and len(said) == 3


def test_too_many_substitutions_stop_the_run():
    inputs = make_inputs(iter([damaged(1, count=4)]), allowed_bad=lambda planned: 3.0)
    with pytest.raises(RunError, match=r"4 damaged.* allows \(3\). Most .* classes 1 \(4\)\. "):
        run(fresh_state(), inputs=inputs)


def test_substitutions_of_one_rank_count_on_all():
    def work(world):
        state = fresh_state()
        batches = iter([damaged(2)]) if world.rank else make_batches()
        inputs = make_inputs(batches, allowed_bad=lambda planned: 1.0)
        train(state, inputs, replace(CONFIG, total_images=BATCH), world, make_callbacks())
        return state.progress.substitutions

    assert on_two_ranks(work) == [[0, 0, 1]] * 2


def failing():
    yield make_batch(torch.arange(BATCH))
    raise OSError("the disk is gone")


def test_a_data_error_on_one_rank_is_told_on_all():
    def work(world):
        batches = failing() if world.rank else make_batches()
        return train(fresh_state(), make_inputs(batches), CONFIG, world, make_callbacks())

    told = "reading the data failed. OSError: the disk is gone"
    assert [str(outcome) for outcome in on_two_ranks(work)] == [told, told]


def full_memory(step):
    """A loss for which the GPU's memory is too small, at one step."""
    steps, own = itertools.count(), make_inputs().loss

    def loss(net, x0, y, draws):
        if next(steps) == step:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"
            )
        return own(net, x0, y, draws)

    return loss


@pytest.mark.parametrize(
    ("micro_batch", "way_out"),
    [
        (0, r"8 images at once \(train.micro_batch 0\).*Try --train.micro-batch 4,"),
        (6, r"6 images at once \(train.micro_batch 6\).*Try --train.micro-batch 3,"),
        (1, "1 images at once .*Try --train.precision bf16"),
    ],
)
def test_a_gpu_that_is_too_small_is_told_the_micro_batch_to_try(micro_batch, way_out):
    config = replace(CONFIG, micro_batch=micro_batch)
    with pytest.raises(DeviceMemoryError, match=way_out):
        run(fresh_state(), config, inputs=make_inputs(loss=full_memory(2)))


def test_a_gpu_that_is_too_small_on_one_rank_ends_all():
    def work(world):
        state = fresh_state()
        batches = make_batches(rank=world.rank, size=2)
        inputs = make_inputs(batches, loss=full_memory(2) if world.rank else None)
        return train(state, inputs, CONFIG, world, make_callbacks())

    told = {(type(outcome), str(outcome)) for outcome in on_two_ranks(work)}
    assert len(told) == 1
    kind, words = told.pop()
    assert kind is DeviceMemoryError and "4 images at once" in words


def test_the_ranks_are_asked_about_the_next_step_while_one_is_computed():
    """On a GPU, that is: it has been queued. Nobody asks about a step that will not be."""
    happened, own = [], make_inputs()

    class Asked(World):
        def begin_sum(self, values):
            happened.append("ask")
            return lambda: happened.append("hear") or values

    def batches():
        for batch in make_batches():
            happened.append("read")
            yield batch

    class Drawing:
        on_device = own.draw.on_device

        def on_host(self, *given):
            happened.append("move")
            return own.draw.on_host(*given)

    def loss(*given):
        happened.append("queue")
        return own.loss(*given)

    config = replace(CONFIG, total_images=3 * BATCH)
    report = make_callbacks(report=lambda state, numbers: happened.append("report"))
    inputs = make_inputs(batches(), loss, draw=Drawing())
    train(fresh_state(), inputs, config, Asked(), report)
    begun = ["read", "ask", "move", "hear"]
    assert happened == [*begun, *["queue", *begun, "report"] * 2, "queue", "report"]


def nan_loss(when):
    """A loss that is not a number at the steps for which ``when`` is true."""
    steps, own = itertools.count(), make_inputs().loss

    def loss(net, x0, y, draws):
        factor = float("nan") if when(next(steps)) else 1.0
        return {name: term * factor for name, term in own(net, x0, y, draws).items()}

    return loss


@pytest.mark.parametrize("bad", [0, 5, 9])
def test_a_step_that_is_not_finite_is_skipped_and_counted(bad):
    state = fresh_state()
    run(state, inputs=make_inputs(loss=nan_loss(lambda step: step == bad)))
    assert state.progress.skipped_steps == 1
    assert all(tensor.isfinite().all() for tensor in tensors(state).values())


def test_skipped_steps_are_counted_in_the_checkpoint_of_a_stop():
    state = fresh_state()
    inputs = make_inputs(loss=nan_loss(lambda step: step == 3))
    run(state, inputs=inputs, stop=lambda: state.progress.steps == 4)
    assert state.progress.steps == 4 and state.progress.skipped_steps == 1


def test_a_loss_that_stays_not_finite_stops_the_run():
    with pytest.raises(RunError, match=r"3 steps in a row.*train.max_bad_steps.*key-0"):
        run(
            fresh_state(),
            replace(CONFIG, max_bad_steps=3),
            inputs=make_inputs(loss=nan_loss(lambda step: True)),
        )


def test_batch_that_does_not_divide_says_what_would():
    with pytest.raises(ValueError, match=r"\(64\).*workers \(6\)\. Try --train.batch-size 60"):
        per_rank(64, 6)
    assert per_rank(60, 6) == 10
