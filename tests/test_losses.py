"""Equation 1 and Equation 4: values, gradients, limits and weights.

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes,
T = steps.
"""

from dataclasses import replace

import pytest
import torch

from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.cbdm import CBDMLoss
from cbdm_scale.losses.ddpm import DDPMLoss
from cbdm_scale.losses.draws import Draws
from cbdm_scale.losses.options import LossConfig

K, T, SHAPE = 4, 1000, (3, 4, 4)
COUNTS = torch.tensor([60, 25, 10, 5])
CPU = torch.device("cpu")
SCHEDULE = LinearSchedule(ScheduleConfig(num_steps=T))
WEIGHTS = torch.tensor([0.5, -1.0, 0.25, 2.0, 1.5])  # by label; the last is "none"


def fake_net(x, level, y, omega=None, augment=None):
    return (
        0.5 * x + WEIGHTS[y].view(-1, 1, 1, 1) * (1 + x.sin()) - 0.001 * level.view(-1, 1, 1, 1)
    )


def make_batch(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.rand((n, *SHAPE), generator=rng) * 2 - 1
    return x0, torch.randint(K, (n,), generator=rng)


def build(n=0, first=0, **options):
    """Loss and draws of images first..first + n - 1."""
    loss, drawer = build_loss(LossConfig(**options), SCHEDULE, COUNTS, seed=5)
    return loss, drawer(torch.arange(first, first + n), SHAPE, CPU)


def pick_rows(draws, rows):
    """The draws of some images of a batch, as their own batch would have them."""
    where = {int(r): i for i, r in enumerate(rows)}
    seen = [where[int(r)] for r in draws.rows if int(r) in where]
    t, eps, dropped, y_alt = (f[rows] for f in (draws.t, draws.eps, draws.dropped, draws.y_alt))
    return Draws(t, eps, dropped, y_alt, torch.tensor(seen, dtype=torch.long))


# ----------------------------------------------------------------------------
# Values.


def naive_terms(net, x0, y, draws, tau, gamma, share):
    """Algorithm 1 as one would read it aloud, one image and one number at a time."""
    beta = [1e-4 + (0.02 - 1e-4) * s / (T - 1) for s in range(T)]
    rows = set(draws.rows.tolist())
    terms = {"total": [], "dm": [], "r": [], "rc": []}
    for i in range(len(x0)):
        t, alpha_bar = int(draws.t[i]), 1.0
        for s in range(t + 1):
            alpha_bar *= 1 - beta[s]
        eps = draws.eps[i : i + 1]
        x_t = alpha_bar**0.5 * x0[i : i + 1] + (1 - alpha_bar) ** 0.5 * eps
        label = K if draws.dropped[i] else int(y[i])
        h = net(x_t, draws.t[i : i + 1], torch.tensor([label]))
        dm, r = 0.0, 0.0
        h_alt = net(x_t, draws.t[i : i + 1], draws.y_alt[i : i + 1])
        for a, b, c in zip(
            h.flatten().tolist(), eps.flatten().tolist(), h_alt.flatten().tolist(), strict=True
        ):
            dm += (a - b) ** 2 / h.numel()
            r += tau * t / T * (a - c) ** 2 / h.numel() / share if i in rows else 0.0
        for name, value in zip(terms, (dm + r + gamma * r, dm, r, r), strict=True):
            terms[name].append(value)
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tau": 0.3, "gamma": 2.0, "p_uncond": 0.0},
        {"gamma": 0.0, "label_power": 0.0, "p_uncond": 0.5},
        {"reg_share": 0.4},
    ],
)
def test_equation_4_has_the_values_of_its_naive_transcription(options):
    config = LossConfig(**options)
    loss, draws = build(n=32, **options)
    x0, y = make_batch(32)
    terms = loss(fake_net, x0, y, draws)
    expected = naive_terms(fake_net, x0, y, draws, config.tau, config.gamma, config.reg_share)
    assert len(draws.rows) > 0
    assert list(terms) == list(expected)
    for name, values in expected.items():
        assert terms[name].shape == (32,)
        assert terms[name].tolist() == pytest.approx(values, rel=2e-5, abs=1e-9), name


def test_equation_1_has_the_values_of_its_naive_transcription():
    loss, draws = build(n=32, name="ddpm", p_uncond=0.3)
    assert isinstance(loss, DDPMLoss)
    x0, y = make_batch(32)
    terms = loss(fake_net, x0, y, draws)
    expected = naive_terms(fake_net, x0, y, draws, 0, 0, 1)
    assert terms["total"].tolist() == pytest.approx(expected["dm"], rel=2e-5)
    assert torch.equal(terms["total"], terms["dm"])


@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_the_weight_is_tau_times_t_over_T(t):
    """With predictions one apart everywhere, L_r is w(t) itself."""

    def net(x, level, y, omega=None, augment=None):
        return (y == 1).float().view(-1, 1, 1, 1).expand_as(x)

    x0, y = make_batch(2)[0], torch.tensor([0, 2])
    draws = Draws(
        torch.full((2,), t),
        torch.zeros(2, *SHAPE),
        torch.zeros(2, dtype=torch.bool),
        torch.tensor([1, 3]),
        torch.arange(2),
    )
    terms = CBDMLoss(SCHEDULE, K, tau=0.7, gamma=0.25)(net, x0, y, draws)
    weight = 0.7 * t / T
    assert terms["dm"].tolist() == [0, 0]
    assert terms["r"].tolist() == terms["rc"].tolist() == pytest.approx([weight, 0])
    assert terms["total"].tolist() == pytest.approx([1.25 * weight, 0])


# ----------------------------------------------------------------------------
# Gradients.


def grad_of_predictions(draws, n, loss):
    """A network whose N + M predictions are free, and the gradient of the mean loss there."""
    rng = torch.Generator().manual_seed(1)
    out = torch.randn((n + len(draws.rows), *SHAPE), generator=rng).requires_grad_()
    x0, y = make_batch(n)
    loss(lambda x, level, y, augment: out, x0, y, draws)["total"].mean().backward()
    return out.detach()[:n], out.detach()[n:], out.grad[:n], out.grad[n:]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_gradients_stop_where_equation_4_says(share):
    """d/dh = 2 w (h - h') / CHW and d/dh' = -2 gamma w (h - h') / CHW, over the mean of all N:
    dropped samples included."""
    n, gamma, tau = 24, 0.25, 0.6
    loss, draws = build(n=n, tau=tau, gamma=gamma, p_uncond=0.3, reg_share=share)
    h, h_alt, grad, grad_alt = grad_of_predictions(draws, n, loss)
    assert 0 < len(draws.rows) < n
    numel = h[0].numel()
    expected = 2 * (h - draws.eps) / numel / n  # L_DM
    for m, i in enumerate(draws.rows.tolist()):
        pull = 2 * tau * int(draws.t[i]) / T / share * (h[i] - h_alt[m]) / numel / n
        expected[i] += pull
        torch.testing.assert_close(grad_alt[m], -gamma * pull)
    torch.testing.assert_close(grad, expected)


def test_without_commitment_the_other_prediction_has_no_gradient():
    loss, draws = build(n=16, gamma=0.0)
    _, _, _, grad_alt = grad_of_predictions(draws, 16, loss)
    assert len(grad_alt) and not grad_alt.any()


def test_the_single_terms_pull_one_side_each():
    loss, draws = build(n=16, p_uncond=0.0)
    x0, y = make_batch(16)
    for name, silent in (("r", slice(16, None)), ("rc", slice(0, 16))):
        rng = torch.Generator().manual_seed(1)
        out = torch.randn((32, *SHAPE), generator=rng).requires_grad_()
        loss(lambda x, level, y, augment, out=out: out, x0, y, draws)[name].sum().backward()
        assert not out.grad[silent].any()
        assert out.grad.any()


# ----------------------------------------------------------------------------
# Limits.


def loss_and_gradient(loss, x0, y, draws):
    weight = WEIGHTS.clone().requires_grad_()

    def net(x, level, y, omega=None, augment=None):
        return 0.5 * x + weight[y].view(-1, 1, 1, 1) * (1 + x.sin())

    total = loss(net, x0, y, draws)["total"]
    total.mean().backward()
    return total.detach(), weight.grad


def test_tau_zero_is_ddpm_bit_for_bit():
    x0, y = make_batch(32)
    cbdm, draws = build(n=32, tau=0.0)
    ddpm, same_draws = build(n=32, name="ddpm")
    assert isinstance(cbdm, CBDMLoss) and isinstance(ddpm, DDPMLoss)
    total, grad = loss_and_gradient(cbdm, x0, y, draws)
    expected_total, expected_grad = loss_and_gradient(ddpm, x0, y, same_draws)
    assert torch.equal(total, expected_total) and torch.equal(grad, expected_grad)


def test_the_regulariser_is_zero_if_the_other_label_is_the_same():
    loss, draws = build(n=32, p_uncond=0.0)
    x0, y = make_batch(32)
    terms = loss(fake_net, x0, y, replace(draws, y_alt=y))
    assert not terms["r"].any() and not terms["rc"].any()
    assert torch.equal(terms["total"], terms["dm"])


def test_dropped_samples_contribute_the_denoising_loss_alone():
    loss, draws = build(n=64, p_uncond=0.5)
    x0, y = make_batch(64)
    terms = loss(fake_net, x0, y, draws)
    dropped = draws.dropped
    assert 0 < dropped.sum() < 64
    assert not set(draws.rows.tolist()) & set(dropped.nonzero().flatten().tolist())
    assert not terms["r"][dropped].any() and not terms["rc"][dropped].any()
    assert torch.equal(terms["total"][dropped], terms["dm"][dropped])
    kept = ~dropped & (y != draws.y_alt)
    assert (terms["r"][kept] > 0).all()


def test_with_every_label_dropped_cbdm_is_ddpm():
    x0, y = make_batch(8)
    cbdm, draws = build(n=8, p_uncond=1.0)
    ddpm, _ = build(name="ddpm")
    assert draws.dropped.all() and not len(draws.rows)
    expected = ddpm(fake_net, x0, y, draws)["total"]
    assert torch.equal(cbdm(fake_net, x0, y, draws)["total"], expected)
    assert torch.equal(cbdm(fake_net, x0, (y + 1) % K, draws)["total"], expected)


def test_the_loss_of_an_image_does_not_depend_on_its_batch():
    """So gradient accumulation and the number of workers change nothing."""
    loss, draws = build(n=24, reg_share=0.5)
    x0, y = make_batch(24)
    whole = loss(fake_net, x0, y, draws)
    for rows in (torch.arange(0, 24, 3), torch.tensor([7]), torch.arange(23, -1, -1)):
        part = loss(fake_net, x0[rows], y[rows], pick_rows(draws, rows))
        for name, values in part.items():
            torch.testing.assert_close(values, whole[name][rows], rtol=1e-6, atol=0)


# ----------------------------------------------------------------------------
# The network call.


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_both_predictions_come_from_one_network_call(share):
    calls = []

    def net(x, level, y, omega=None, augment=None):
        calls.append((x, level, y))
        return fake_net(x, level, y)

    loss, draws = build(n=40, reg_share=share)
    x0, y = make_batch(40)
    loss(net, x0, y, draws)
    ((x, level, labels),) = calls
    m = len(draws.rows)
    assert len(x) == len(level) == len(labels) == 40 + m
    assert torch.equal(x[40:], x[draws.rows]) and torch.equal(level[40:], draws.t[draws.rows])
    assert torch.equal(labels[:40], torch.where(draws.dropped, K, y))
    assert torch.equal(labels[40:], draws.y_alt[draws.rows])


def test_losses_are_fp32_whatever_the_network_computes_in():
    x0, y = make_batch(8)
    for name in ("ddpm", "cbdm"):
        loss, draws = build(n=8, name=name)
        terms = loss(lambda x, t, y, augment: fake_net(x, t, y).bfloat16(), x0, y, draws)
        assert all(values.dtype == torch.float32 for values in terms.values())


# ----------------------------------------------------------------------------
# A share of the images for the regulariser.


def test_a_share_of_the_regulariser_leaves_the_expectation():
    """The mean over many selections is the loss, and the gradient, of the whole."""
    n, share, draws_of_chance = 8, 0.5, 500
    x0, y = make_batch(n)
    whole, draws = build(n=n, p_uncond=0.0)
    expected_loss, expected_grad = loss_and_gradient(whole, x0, y, draws)
    part = CBDMLoss(SCHEDULE, K, tau=1.0, gamma=0.25, reg_share=share)
    # Each selection is what the drawer makes for eight other images.
    chosen = build(n * draws_of_chance, reg_share=share, p_uncond=0.0)[1].rows
    seen = torch.zeros(draws_of_chance * n, dtype=torch.bool)
    seen[chosen] = True
    losses, grads = [], []
    for selection in seen.view(draws_of_chance, n):
        rows = selection.nonzero().flatten()
        total, grad = loss_and_gradient(part, x0, y, replace(draws, rows=rows))
        losses.append(total)
        grads.append(grad)
    for values, expected in ((losses, expected_loss), (grads, expected_grad)):
        stacked = torch.stack(values)
        error = (stacked.mean(0) - expected).abs()
        assert (error <= 5 * stacked.std(0) / draws_of_chance**0.5 + 1e-6).all()
