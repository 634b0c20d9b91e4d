"""The second stage of TCFG: values, gradients, draws, and who learns.

Shapes: N = batch, C, H, W = image, K = classes (label K means "none").
"""

import copy

import pytest
import torch
from objective_tools import (
    COUNTS,
    CPU,
    PROCESSES,
    SHAPE,
    WEIGHTS,
    K,
    every_process,
    fake_net,
    make_batch,
    with_drawn,
)
from test_backbones import batch, every_backbone, shaken, tiny

from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.distillation import UNGUIDED_SHARE
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.embeddings import set_trainable
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.checkpoint import save_initial
from cbdm_scale.training.distributed import World
from cbdm_scale.training.resume import load_teacher

TAUGHT = torch.tensor([-0.3, 1.2, 0.6, -0.8, 0.1], requires_grad=True)
"""The weights of the teacher, a fake_net, by label; the last is "none"."""
STAGE = {"name": "ddpm", "tcfg": True, "tcfg_target": "teacher"}


def teacher(x, level, y, omega=None, augment=None):
    assert omega is None, "a teacher is guided by two predictions"
    return fake_net(x, level, y, augment=augment, weights=TAUGHT)


def build(n, process="ddpm", net=teacher, **options):
    config = LossConfig(**STAGE | {"omega_max": 2.0} | options)
    loss, drawer = build_loss(config, PROCESSES[process], COUNTS, 5, n, net)
    return loss, drawer(torch.arange(n), SHAPE, CPU)


@every_process
def test_it_has_the_values_and_gradient_of_its_slow_transcription(process):
    """Image by image, with two calls of the teacher; in the space of the network's outputs."""
    n = 40
    loss, draws = build(n, process, p_uncond=0.3)
    x0, y = make_batch(n)
    ours, exact = WEIGHTS.clone().requires_grad_(), WEIGHTS.clone().requires_grad_()
    terms = loss(lambda *a, **o: fake_net(*a, **o, weights=ours), x0, y, draws)
    noisy = PROCESSES[process].noisy(x0, draws.t, draws.eps)
    expected, pushes = [], []
    for i in range(n):
        x, level = noisy.x[i : i + 1], noisy.level[i : i + 1]
        label = torch.tensor([K if draws.dropped[i] else int(y[i])])
        omega = draws.term_draws["omega"][i : i + 1]
        with torch.no_grad():
            with_label = teacher(x, level, label)
            without = teacher(x, level, torch.tensor([K]))
        if draws.dropped[i]:
            assert not omega and torch.equal(with_label, without)
        target = (1 + omega) * with_label - omega * without
        off = fake_net(x, level, label, omega, weights=exact) - target
        expected.append((off**2).sum() / off.numel())
        pushes.append(((target - with_label) ** 2).mean())
    assert list(terms) == ["total", "distil", "push"] and draws.dropped.any()
    torch.testing.assert_close(terms["total"], torch.stack(expected), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(terms["push"], torch.stack(pushes), rtol=1e-5, atol=1e-7)
    assert torch.equal(terms["total"], terms["distil"])
    terms["total"].mean().backward()
    assert TAUGHT.grad is None
    torch.stack(expected).mean().backward()
    torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-4, atol=1e-6)


@every_process
def test_at_strength_zero_a_student_that_is_its_teacher_has_no_loss(process):
    loss, draws = build(16, process, p_uncond=0.3)
    x0, y = make_batch(16)
    unguided = with_drawn(draws, omega=torch.zeros(16))
    terms = loss(lambda *a, **o: fake_net(*a, **o, weights=TAUGHT), x0, y, unguided)
    assert not terms["total"].any() and not terms["push"].any()


def test_strengths_are_uniform_above_a_share_of_zeros_and_dropped_labels_have_none():
    n = 20_000
    _, draws = build(n, p_uncond=0.2, omega_max=3.0)
    omega, kept = draws.term_draws["omega"], ~draws.dropped
    assert not omega[draws.dropped].any() and omega.dtype == torch.float32
    guided = omega[kept & (omega > 0)] / 3
    share = 1 - len(guided) / int(kept.sum())
    assert share == pytest.approx(UNGUIDED_SHARE, abs=0.01)
    quantiles = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(guided.quantile(quantiles), quantiles, rtol=0, atol=0.02)


def test_the_draws_of_step_noise_and_dropped_labels_are_those_of_every_objective():
    _, draws = build(64)
    _, drawer = build_loss(LossConfig(name="ddpm"), PROCESSES["ddpm"], COUNTS, 5, 64)
    plain = drawer(torch.arange(64), SHAPE, CPU)
    for field in ("t", "eps", "dropped"):
        assert torch.equal(getattr(draws, field), getattr(plain, field)), field


# ----------------------------------------------------------------------------
# Networks.


def of_batch(net, process, frozen):
    """The terms of a batch with a real network and its teacher, after backward."""
    x, _, y = batch()
    config = LossConfig(**STAGE, omega_max=2.0, p_uncond=0.3)
    classes = net.label.num_embeddings - 1
    y, counts = y % classes, torch.ones(classes)
    loss, drawer = build_loss(config, PROCESSES[process], counts, 5, len(x), frozen)
    draws = drawer(torch.arange(len(x)), tuple(x.shape[1:]), CPU)
    terms = loss(net, x, y, draws)
    terms["total"].mean().backward()
    return terms


@every_backbone
@pytest.mark.parametrize("process", ["ddpm", "edm"])
def test_every_weight_of_the_student_learns_and_none_of_the_teacher(backbone, process):
    """DDP would refuse a weight without gradient."""
    net = shaken(tiny(backbone, augment=True, omega_max=2.0))
    frozen = copy.deepcopy(net).eval().requires_grad_(False)
    before = {name: t.clone() for name, t in frozen.state_dict().items()}
    of_batch(net, process, frozen)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    silent = {name for name, p in net.named_parameters() if not p.grad.any()}
    assert silent <= {"augment.weight"}
    assert all(p.grad is None for p in frozen.parameters())
    for name, tensor in frozen.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@every_backbone
@pytest.mark.parametrize("which", ["all", "embeddings", "omega"])
def test_the_weights_that_learn_are_those_of_train_trainable(backbone, which):
    net = shaken(tiny(backbone, omega_max=2.0))
    frozen = copy.deepcopy(net).eval().requires_grad_(False)
    learning = set_trainable(net, which)
    of_batch(net, "ddpm", frozen)
    with_grad = {name for name, p in net.named_parameters() if p.grad is not None}
    assert with_grad == {name for name, p in net.named_parameters() if p.requires_grad}
    assert len(learning) == len(with_grad)
    every = {name for name, _ in net.named_parameters()}
    omega = {"omega.linear_1.weight", "omega.linear_2.weight"}
    if which == "embeddings":
        assert omega < with_grad < every and "label.weight" in with_grad
        assert any(name.startswith("time") for name in with_grad)
        assert any("emb." in name or "modulation." in name for name in with_grad)
    else:
        assert with_grad == (every if which == "all" else omega)


def test_a_teacher_is_what_the_run_started_from_frozen_and_without_dropout(tmp_path):
    """Whatever mode and weights the network has that it is made of."""
    run, there = Storage(str(tmp_path)), shaken(tiny("unet"))
    save_initial(run, there.state_dict(), {"url": "elsewhere"})
    net = shaken(tiny("unet", omega_max=2.0)).train()
    found = load_teacher(run, net, World())
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert not any(module.training for module in found.modules())
    assert net.training and all(p.requires_grad for p in net.parameters())
    x, t, y = batch()
    with torch.no_grad():
        assert torch.equal(found(x, t, y), there.eval()(x, t, y))
    (tmp_path / "init.safetensors").unlink()
    with pytest.raises(ValueError, match="init.safetensors, what the run started from, cannot"):
        load_teacher(run, net, World())
