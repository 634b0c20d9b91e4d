"""Equations 32 and 33: values, gradients, limits, one network call.

Shapes: N = batch, M = images that the regulariser sees, G = images that learn the strength,
C, H, W = image, K = classes, T = steps.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.tcfg import tcfg_terms
from cbdm_scale.models.build import build as build_net
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.pretrained.paper_checkpoint import load_paper_checkpoint

K, T, SHAPE = 4, 1000, (3, 4, 4)
COUNTS = torch.tensor([60, 25, 10, 5])
CPU = torch.device("cpu")
SCHEDULE = LinearSchedule(ScheduleConfig(num_steps=T))
WEIGHTS = torch.tensor([0.5, -1.0, 0.25, 2.0, 1.5])  # by label; the last is "none"
REFERENCE = Path(__file__).parents[2] / "shared" / "data" / "cbdm_checkpoint"
BOTH = ["ddpm", "cbdm"]


def fake_net(x, level, y, omega=None, augment=None):
    """A network whose every argument shows in what it returns."""
    out = 0.5 * x + WEIGHTS[y].view(-1, 1, 1, 1) * (1 + x.sin())
    out = out - 0.001 * level.view(-1, 1, 1, 1)
    if omega is None:
        return out
    return out + omega.view(-1, 1, 1, 1) * (x + 0.3 * WEIGHTS[y].view(-1, 1, 1, 1))


def make_batch(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.rand((n, *SHAPE), generator=rng) * 2 - 1
    return x0, torch.randint(K, (n,), generator=rng)


def build(n=0, **options):
    """Loss and draws of n images."""
    config = LossConfig(**{"tcfg": True, **options})
    loss, drawer = build_loss(config, SCHEDULE, COUNTS, seed=5)
    return loss, drawer(torch.arange(n), SHAPE, CPU)


# ----------------------------------------------------------------------------
# Values.


def naive_terms(e, e_uncond, e_omega, eps, omega, gamma):
    """Both equations of one image, one number at a time."""
    g = 0.0
    parts = (v.flatten().tolist() for v in (e, e_uncond, e_omega, eps))
    for a, b, c, noise in zip(*parts, strict=True):
        g += (c - omega * (a - b) - noise) ** 2 / e.numel()
    return g, gamma * g


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "options", [{}, {"omega_max": 3.0, "tcfg_gamma": 0.7, "p_uncond": 0.5}]
)
def test_equations_32_and_33_have_the_values_of_their_naive_transcription(name, options):
    config = LossConfig(name=name, tcfg=True, **options)
    loss, draws = build(32, name=name, **options)
    x0, y = make_batch(32)
    terms = loss(fake_net, x0, y, draws)
    plain, _ = build(name=name, tcfg=False)
    before = plain(fake_net, x0, y, draws)
    assert 0 < draws.dropped.sum() < 32
    for i in range(32):
        t, label = draws.t[i : i + 1], y[i : i + 1]
        x_t = SCHEDULE.add_noise(x0[i : i + 1], t, draws.eps[i : i + 1])
        e, none = fake_net(x_t, t, label), fake_net(x_t, t, torch.tensor([K]))
        omega = draws.omega[i : i + 1]
        predictions = e, none, fake_net(x_t, t, label, omega)
        g, gc = naive_terms(*predictions, draws.eps[i], float(omega), config.tcfg_gamma)
        if draws.dropped[i]:
            g = gc = 0.0
        assert terms["g"][i].item() == pytest.approx(g, rel=2e-5, abs=1e-9)
        assert terms["gc"][i].item() == pytest.approx(gc, rel=2e-5, abs=1e-9)
        total = before["total"][i].item() + g + gc
        assert terms["total"][i].item() == pytest.approx(total, rel=2e-5)
    for term in before.keys() - {"total"}:
        assert torch.equal(terms[term], before[term]), term


def test_equation_33_has_the_noise_that_its_print_lacks():
    """With exact predictions of a noise that is certain, both terms are zero."""
    eps = torch.randn(5, *SHAPE)
    g, gc = tcfg_terms(eps, eps, eps, eps, torch.rand(5), gamma=0.25)
    assert not g.any() and not gc.any()


# ----------------------------------------------------------------------------
# Gradients.


@pytest.mark.parametrize("gamma", [0.25, 0.0])
def test_gradients_stop_where_equations_32_and_33_say(gamma):
    """With d = e_omega - omega (e - e_uncond) - eps: 2 d / CHW on e_omega from (32) alone; from
    (33) alone -2 gamma omega d / CHW on e, which is -(omega / 2) d / CHW, and its negative on
    e_uncond."""
    rng = torch.Generator().manual_seed(1)
    e, e_uncond, e_omega, eps = torch.randn((4, 6, *SHAPE), generator=rng).unbind()
    omega = torch.rand(6, generator=rng)
    inputs = [v.requires_grad_() for v in (e, e_uncond, e_omega)]
    for v in inputs:
        assert v.is_leaf
    g, gc = tcfg_terms(*inputs, eps, omega, gamma)
    d = (e_omega - omega.view(-1, 1, 1, 1) * (e - e_uncond) - eps).detach() / e[0].numel()
    zero = torch.zeros_like(d)
    of_g = torch.autograd.grad(g.sum(), inputs, allow_unused=True, retain_graph=True)
    of_gc = torch.autograd.grad(gc.sum(), inputs, allow_unused=True)
    push = 2 * gamma * omega.view(-1, 1, 1, 1) * d
    for found, expected in zip(
        (*of_g, *of_gc), (zero, zero, 2 * d, -push, push, zero), strict=True
    ):
        torch.testing.assert_close(zero if found is None else found, expected)
    if gamma == 0.25:
        torch.testing.assert_close(push, omega.view(-1, 1, 1, 1) / 2 * d)


@pytest.mark.parametrize("name", BOTH)
def test_the_gradient_is_a_mean_over_all_images_and_branches_have_their_places(name):
    """A network whose N + M + 2G predictions are free: the gradient of the mean loss there."""
    n = 16
    loss, draws = build(n, name=name, p_uncond=0.3)
    m, g = len(draws.rows), len(draws.guided)
    assert 0 < g < n and (m > 0) == (name == "cbdm")
    x0, y = make_batch(n)
    rng = torch.Generator().manual_seed(1)
    out = torch.randn((n + m + 2 * g, *SHAPE), generator=rng).requires_grad_()
    plain, _ = build(name=name, tcfg=False)
    free = out.detach()[: n + m].clone().requires_grad_()
    plain(lambda x, level, y, augment: free, x0, y, draws)["total"].mean().backward()
    loss(lambda x, level, y, omega, augment: out, x0, y, draws)["total"].mean().backward()

    expected = torch.zeros_like(out)
    expected[: n + m] = free.grad
    h, h_uncond, h_omega = out[:n], out[n + m : n + m + g], out[n + m + g :]
    for j, i in enumerate(draws.guided.tolist()):
        omega = draws.omega[i]
        d = h_omega[j] - omega * (h[i] - h_uncond[j]) - draws.eps[i]
        d = d.detach() / d.numel() / n
        expected[i] -= omega / 2 * d
        expected[n + m + j] += omega / 2 * d
        expected[n + m + g + j] += 2 * d
    torch.testing.assert_close(out.grad, expected)


# ----------------------------------------------------------------------------
# Limits.


@pytest.mark.parametrize("name", BOTH)
def test_without_tcfg_draws_and_losses_are_what_they_were(name):
    x0, y = make_batch(32)
    loss, draws = build(32, name=name)
    plain, before = build(32, name=name, tcfg=False)
    assert before.omega is None and before.guided is None
    for field in ("t", "eps", "dropped", "y_alt", "rows"):
        assert torch.equal(getattr(draws, field), getattr(before, field)), field
    assert plain(fake_net, x0, y, before).keys() == loss(fake_net, x0, y, draws).keys() - {
        "g",
        "gc",
    }


@pytest.mark.parametrize("name", BOTH)
def test_with_every_label_dropped_it_is_the_denoising_loss(name):
    x0, y = make_batch(8)
    loss, draws = build(8, name=name, p_uncond=1.0)
    terms = loss(fake_net, x0, y, draws)
    assert not len(draws.guided)
    assert torch.equal(terms["total"], terms["dm"])
    assert not terms["g"].any() and not terms["gc"].any()


def test_at_strength_zero_both_terms_are_the_denoising_loss():
    x0, y = make_batch(8)
    loss, draws = build(8, name="ddpm")
    terms = loss(fake_net, x0, y, replace(draws, omega=torch.zeros(8)))
    kept = ~draws.dropped
    torch.testing.assert_close(terms["g"][kept], terms["dm"][kept])
    torch.testing.assert_close(terms["gc"][kept], terms["dm"][kept] / 4)


@pytest.mark.parametrize("name", BOTH)
def test_the_loss_of_an_image_does_not_depend_on_its_batch(name):
    config = LossConfig(name=name, tcfg=True, p_uncond=0.3)
    loss, drawer = build_loss(config, SCHEDULE, COUNTS, seed=5)
    x0, y = make_batch(24)
    images = torch.arange(10**10, 10**10 + 24)
    whole = loss(fake_net, x0, y, drawer(images, SHAPE, CPU))
    for rows in (torch.arange(0, 24, 3), torch.tensor([7]), torch.arange(23, -1, -1)):
        part = loss(fake_net, x0[rows], y[rows], drawer(images[rows], SHAPE, CPU))
        for term, values in part.items():
            torch.testing.assert_close(values, whole[term][rows], rtol=1e-6, atol=0)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no checkpoint of the paper at {REFERENCE}")
def test_a_fresh_layer_on_a_trained_network_changes_nothing_bit_for_bit():
    """So that TCFG can be taught to any trained conditional network."""
    read = load_paper_checkpoint(REFERENCE / "ckpt_3.pt")
    data = {k: torch.from_numpy(v) for k, v in np.load(REFERENCE / "ckpt_3.npz").items()}
    sizes = {"image_channels": read.image_channels, "image_size": 32}
    before, after = (
        build_net(read.config, num_classes=read.num_classes, omega=omega, **sizes).eval()
        for omega in (False, True)
    )
    before.load_state_dict(read.state_dict)
    missing, unexpected = after.load_state_dict(read.state_dict, strict=False)
    assert not unexpected and all(name.startswith("omega.") for name in missing)
    x_t, t, y = data["x_t"], data["t"], data["y"]
    with torch.no_grad():
        expected = before(x_t, t, y)
        for omega in (None, torch.zeros(len(y)), torch.linspace(0, 2, len(y))):
            assert torch.equal(after(x_t, t, y, omega), expected)


# ----------------------------------------------------------------------------
# The network call.


@pytest.mark.parametrize("name", BOTH)
def test_all_branches_come_from_one_network_call_and_none_twice(name):
    calls = []

    def net(x, level, y, omega=None, augment=None):
        calls.append((x, level, y, omega, augment))
        return fake_net(x, level, y, omega)

    loss, draws = build(40, name=name, reg_share=0.5)
    draws = replace(draws, augment=torch.randn(40, 9))
    x0, y = make_batch(40)
    loss(net, x0, y, draws)
    ((x, level, labels, omega, augment),) = calls
    seen, kept = draws.rows, draws.guided
    assert torch.equal(kept, (~draws.dropped).nonzero().flatten())
    rows = torch.cat([torch.arange(40), seen, kept, kept])
    assert torch.equal(x, x[:40][rows]) and torch.equal(level, draws.t[rows])
    assert torch.equal(augment, draws.augment[rows])
    y_in, none = torch.where(draws.dropped, K, y), torch.full_like(kept, K)
    assert torch.equal(labels, torch.cat([y_in, draws.y_alt[seen], none, y[kept]]))
    silent = torch.zeros(40 + len(seen) + len(kept))
    assert torch.equal(omega, torch.cat([silent, draws.omega[kept]]))
    asked = set(zip(rows.tolist(), labels.tolist(), omega.tolist(), strict=True))
    own = {(int(i), int(y[i]), 0.0) for i in seen if draws.y_alt[i] == y[i]}
    assert len(asked) == len(rows) - len(own)  # y' = y is asked again, as Algorithm 1 has it


def test_strengths_are_uniform_and_belong_to_the_image():
    _, draws = build(20_000, omega_max=3.0)
    counts = torch.histc(draws.omega, 6, 0, 3)
    assert (counts - 20_000 / 6).abs().max() < 5 * (20_000 / 6) ** 0.5
    others = torch.stack(
        [draws.omega, draws.t, draws.y_alt, draws.dropped, draws.eps[:, 0, 0, 0]]
    )
    assert (torch.corrcoef(others)[0, 1:].abs() < 5 / 20_000**0.5).all()
    drawer = build_loss(LossConfig(tcfg=True), SCHEDULE, COUNTS, seed=5)[1]
    images = torch.randperm(64)
    whole, part = (drawer(i, (1,), CPU).omega for i in (images, images[5:9]))
    assert torch.equal(part, whole[5:9]) and whole.dtype == torch.float32
    assert {f.device.type for f in (draws.to("meta").omega, draws.to("meta").guided)} == {
        "meta"
    }


@pytest.mark.parametrize("name", BOTH)
def test_ddp_finds_no_unused_parameter(name):
    """It would refuse the second step. The last batch has every label dropped."""
    small = UNetConfig(channels=8, multipliers=(1, 2), num_blocks=1, attention=(), groups=4)
    loss, drawer = build_loss(LossConfig(name=name, tcfg=True), SCHEDULE, COUNTS, seed=5)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = build_net(small, image_channels=1, image_size=8, num_classes=K, omega=True)
        net = net.to(memory_format=torch.channels_last)
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        for step in range(4):
            x0, y = torch.randn(6, 1, 8, 8), torch.arange(6) % K
            draws = drawer(torch.arange(6 * step, 6 * step + 6), (1, 8, 8), CPU)
            if step == 3:
                draws = replace(
                    draws,
                    dropped=torch.ones(6, dtype=torch.bool),
                    rows=draws.rows[:0],
                    guided=draws.guided[:0],
                )
            net.zero_grad()
            loss(wrapped, x0, y, draws)["total"].mean().backward()
            assert all(p.grad is not None for p in net.parameters())
    finally:
        dist.destroy_process_group()
