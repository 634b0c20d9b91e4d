import copy

import pytest
import torch
from training_tools import BATCH, TinyNet, fresh_state, make_batch, make_inputs, on_device

from cbdm_scale.losses.term import mean_sq
from cbdm_scale.training.distributed import World
from cbdm_scale.training.gradients import ClippedAdam, NonFiniteGuard, RunError, backward


def gradients(net, *, loss=None, micro_batch=0, precision="fp32"):
    """The terms of a batch, all in all; the gradient is left in the network."""
    inputs = make_inputs(loss=loss)
    batch = make_batch(torch.arange(BATCH))
    parts = on_device(batch, inputs.draw, micro_batch=micro_batch)
    return list(backward(net, inputs.loss, parts, World(), precision=precision))


def fill(net, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.empty_like(p).copy_(scale * torch.randn(p.shape, generator=generator))


def test_the_gradient_is_that_of_the_mean_over_the_batch():
    net = TinyNet()
    (terms,) = gradients(net)
    again = copy.deepcopy(net)
    again.zero_grad()
    inputs, batch = make_inputs(), make_batch(torch.arange(BATCH))
    draws = inputs.draw(batch.sample_ids, (1, 8, 8), torch.device("cpu"))
    inputs.loss(again, batch.x0, batch.y, draws)["total"].mean().backward()
    assert terms["total"].shape == (BATCH,)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("micro_batch", [1, 3, 8, 100])
def test_micro_batches_give_the_same_gradient(micro_batch):
    net = TinyNet()
    again = copy.deepcopy(net)
    (whole,) = gradients(net)
    parts = gradients(again, micro_batch=micro_batch)
    assert len(parts) == -(-BATCH // micro_batch)
    for first, part in enumerate(parts):
        torch.testing.assert_close(part["total"], whole["total"][first :: len(parts)])
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_bf16_is_the_network_alone():
    """Weights, gradients and losses stay fp32."""
    net, seen = TinyNet(), []

    def loss(net, x0, y, draws):
        e = net(x0, draws.t, y)
        seen.append(e.dtype)
        return {"total": mean_sq(e.float() - draws.eps)}

    (terms,) = gradients(net, loss=loss, precision="bf16")
    assert seen == [torch.bfloat16]
    assert terms["total"].dtype == torch.float32
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_the_step_is_clip_grad_norm_and_plain_adam(scale):
    fused, plain = fresh_state(), fresh_state()
    adam = torch.optim.Adam(plain.net.parameters(), lr=1.0, fused=False, foreach=False)
    update = ClippedAdam(fused.optimizer, 1.0)
    for step in range(4):
        for state in (fused, plain):
            fill(state.net, seed=step, scale=scale)
        norm = update.step(0.01)
        expected = torch.nn.utils.clip_grad_norm_(plain.net.parameters(), 1.0)
        adam.param_groups[0]["lr"] = 0.01
        adam.step()
        torch.testing.assert_close(norm, expected)
    assert (norm > 1) == (scale > 1)
    for a, b in zip(fused.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            fused.optimizer.state[a]["exp_avg_sq"], adam.state[b]["exp_avg_sq"]
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    state = fresh_state()
    fill(state.net, seed=0)
    update = ClippedAdam(state.optimizer, 1.0)
    update.step(0.01)

    def everything():
        moments = [v for p in state.net.parameters() for v in state.optimizer.state[p].values()]
        return [t.detach().clone() for t in [*state.net.parameters(), *moments]]

    before = everything()
    fill(state.net, seed=1)
    next(state.net.parameters()).grad[0, 0, 0, 0] = bad
    assert not update.step(0.01).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))

    fill(state.net, seed=2)
    assert update.step(0.01).isfinite()
    assert not all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))


GOOD, BAD = torch.tensor(1.0), torch.tensor(float("nan"))


def test_a_skipped_step_is_counted_one_step_late():
    guard = NonFiniteGuard(max_in_a_row=5)
    norms = [GOOD, BAD, GOOD, BAD, BAD, GOOD]
    assert [guard.record(norm, ("a",)) for norm in norms] == [0, 0, 1, 0, 1, 1]
    assert guard.flush() == 0


def test_the_last_step_is_counted_once():
    guard = NonFiniteGuard(max_in_a_row=5)
    guard.record(BAD, ("a",))
    assert [guard.flush(), guard.flush()] == [1, 0]


def test_too_many_skipped_steps_in_a_row_name_their_samples():
    guard = NonFiniteGuard(max_in_a_row=2)
    for norm, key in ((BAD, "x"), (GOOD, "y"), (BAD, "a"), (BAD, "b")):
        guard.record(norm, (key,))
    with pytest.raises(RunError, match=r"2 steps in a row \(train.max_bad_steps\).*: a, b\."):
        guard.flush()
