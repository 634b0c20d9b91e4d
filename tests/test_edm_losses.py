"""The objectives under EDM: the denoiser's weighted error, and raw outputs for the other terms.

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes
(label K means "none").
"""

import pytest
import torch

from cbdm_scale.diffusion.edm import EDM, loss_weight, scaling
from cbdm_scale.diffusion.options import EDMConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.cbdm import CBDMLoss
from cbdm_scale.losses.draws import Draws
from cbdm_scale.losses.options import LossConfig

K, SHAPE = 4, (3, 4, 4)
COUNTS = torch.tensor([60, 25, 10, 5])
CPU = torch.device("cpu")
PROCESS = EDM()
WEIGHTS = torch.tensor([0.5, -1.0, 0.25, 2.0, 1.5])  # by label; the last is "none"


def column(v):
    return v.view(-1, 1, 1, 1)


def raw(x_in, c_noise, y, omega=None, augment=None, weights=WEIGHTS):
    """A network F whose every argument shows in what it returns."""
    out = 0.5 * x_in + column(weights[y]) * (1 + x_in.sin()) - 0.3 * column(c_noise)
    if omega is None:
        return out
    return out + column(omega) * (x_in + 0.3 * column(weights[y]))


def make_batch(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.rand((n, *SHAPE), generator=rng) * 2 - 1
    return x0, torch.randint(K, (n,), generator=rng)


def build(n=0, process=PROCESS, **options):
    loss, drawer = build_loss(LossConfig(**options), process, COUNTS, seed=5)
    return loss, drawer(torch.arange(n), SHAPE, CPU)


class Literal:
    """EDM's paper in the space of images: x, D and lambda, in float64, without F_target."""

    def __init__(self, x0, draws, weights=WEIGHTS, config=None):
        config = config or EDMConfig()
        self.x0 = x0.double()
        self.sigma = (config.p_mean + config.p_std * torch.special.ndtri(draws.t)).exp()
        self.x = self.x0 + column(self.sigma) * draws.eps.double()
        self.c = scaling(self.sigma, config.sigma_data)
        self.weight, self.weights = loss_weight(self.sigma, config.sigma_data), weights.double()

    def f(self, y, omega=None):
        omega = None if omega is None else omega.double()
        return raw(column(self.c.c_in) * self.x, self.c.c_noise, y, omega, weights=self.weights)

    def d(self, y, omega=None):
        return column(self.c.c_skip) * self.x + column(self.c.c_out) * self.f(y, omega)

    def weighted(self, difference):
        return self.weight * difference.square().flatten(1).mean(1)


# ----------------------------------------------------------------------------
# Values.


@pytest.mark.parametrize("config", [EDMConfig(), EDMConfig(p_mean=-0.4, sigma_data=0.8)])
def test_denoising_is_the_weighted_error_of_the_denoiser(config):
    loss, draws = build(64, EDM(config), name="ddpm", p_uncond=0.3)
    x0, y = make_batch(64)
    terms = loss(raw, x0, y, draws)
    edm = Literal(x0, draws, config=config)
    label = torch.where(draws.dropped, K, y)
    expected = edm.weighted(edm.d(label) - edm.x0)
    assert 0 < draws.dropped.sum() < 64
    torch.testing.assert_close(terms["dm"].double(), expected, rtol=2e-5, atol=0)
    assert torch.equal(terms["total"], terms["dm"]) and terms["dm"].dtype == torch.float32


def test_class_balancing_is_the_weighted_difference_of_denoisers_times_the_quantile():
    """w = tau u, u the uniform number that made sigma: for images that the regulariser sees."""
    loss, draws = build(64, tau=0.6, gamma=0.5, reg_share=0.5)
    x0, y = make_batch(64)
    terms = loss(raw, x0, y, draws)
    edm, rows = Literal(x0, draws), draws.rows
    expected = torch.zeros(64, dtype=torch.float64)
    between = edm.weighted(edm.d(torch.where(draws.dropped, K, y)) - edm.d(draws.y_alt))
    expected[rows] = 0.6 / 0.5 * draws.t[rows] * between[rows]
    assert 0 < len(rows) < 64 and draws.t.dtype == torch.float64
    for name in ("r", "rc"):
        torch.testing.assert_close(terms[name].double(), expected, rtol=2e-5, atol=1e-9)
    total = terms["dm"] + terms["r"] + 0.5 * terms["rc"]
    torch.testing.assert_close(terms["total"], total)


def test_the_quantile_of_the_weight_is_the_share_of_training_with_less_noise():
    _, draws = build(20_000)
    sigma = PROCESS.sigma(draws.t)
    order = sigma.argsort()
    ranks = torch.empty(20_000).double()
    ranks[order] = torch.arange(20_000).double() / 20_000
    assert (draws.t > 0).all() and (draws.t < 1).all()
    torch.testing.assert_close(draws.t, ranks, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.t[order], draws.t.sort().values, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ddpm", "cbdm"])
def test_guidance_is_taught_between_raw_outputs_which_is_between_denoisers(name):
    options = {"name": name, "tcfg": True, "omega_max": 2.0, "p_uncond": 0.3}
    loss, draws = build(64, **options)
    x0, y = make_batch(64)
    terms = loss(raw, x0, y, draws)
    edm, none = Literal(x0, draws), torch.full_like(y, K)
    push = column(draws.omega.double()) * (edm.d(y) - edm.d(none))
    expected = edm.weighted(edm.d(y, draws.omega) - push - edm.x0).where(~draws.dropped, 0)
    torch.testing.assert_close(terms["g"].double(), expected, rtol=5e-5, atol=1e-9)
    torch.testing.assert_close(terms["gc"].double(), expected / 4, rtol=5e-5, atol=1e-9)
    plain, _ = build(name=name)
    before = plain(raw, x0, y, draws)
    assert all(torch.equal(terms[term], before[term]) for term in before.keys() - {"total"})
    added = before["total"] + terms["g"] + terms["gc"]
    torch.testing.assert_close(terms["total"], added)


# ----------------------------------------------------------------------------
# Gradients.


def test_the_gradient_is_that_of_the_paper_s_loss_with_its_stop_gradients():
    """Of Equation 4 in the space of denoisers, weighted by lambda, by autograd in float64."""
    loss, draws = build(48, tau=0.6, p_uncond=0.2)
    x0, y = make_batch(48)
    weights = WEIGHTS.clone().requires_grad_()
    total = loss(lambda *a, augment: raw(*a, weights=weights), x0, y, draws)["total"]
    total.mean().backward()
    exact = WEIGHTS.clone().double().requires_grad_()
    edm, rows = Literal(x0, draws, exact), draws.rows
    d, d_alt = edm.d(torch.where(draws.dropped, K, y)), edm.d(draws.y_alt)
    pull = edm.weighted(d - d_alt.detach()) + 0.25 * edm.weighted(d.detach() - d_alt)
    of_seen = torch.zeros(48).double().index_fill(0, rows, 1)
    (edm.weighted(d - edm.x0) + of_seen * 0.6 * draws.t * pull).mean().backward()
    torch.testing.assert_close(weights.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_gradients_of_raw_outputs_stop_where_equation_4_says():
    """d/dF = 2 w (F - F') / CHW and d/dF' = -2 gamma w (F - F') / CHW, w = tau u."""
    n, gamma, tau = 16, 0.25, 0.7
    loss, draws = build(n, tau=tau, gamma=gamma, p_uncond=0.3)
    x0, y = make_batch(n)
    m = len(draws.rows)
    rng = torch.Generator().manual_seed(1)
    out = torch.randn((n + m, *SHAPE), generator=rng).requires_grad_()
    loss(lambda x, level, y, augment: out, x0, y, draws)["total"].mean().backward()
    f, f_alt = out.detach()[:n], out.detach()[n:]
    numel, target = f[0].numel(), PROCESS.noisy(x0, draws.t, draws.eps).target
    expected = 2 * (f - target) / numel / n
    for k, i in enumerate(draws.rows.tolist()):
        pull = 2 * tau * float(draws.t[i]) * (f[i] - f_alt[k]) / numel / n
        expected[i] += pull
        torch.testing.assert_close(out.grad[n + k], -gamma * pull)
    torch.testing.assert_close(out.grad[:n], expected)


# ----------------------------------------------------------------------------
# Limits, and the network call.


def test_tau_zero_is_plain_edm_bit_for_bit():
    x0, y = make_batch(32)
    cbdm, draws = build(32, tau=0.0)
    plain, same = build(32, name="ddpm")
    assert isinstance(cbdm, CBDMLoss) and torch.equal(draws.t, same.t)
    expected = plain(raw, x0, y, same)["total"]
    assert torch.equal(cbdm(raw, x0, y, draws)["total"], expected)


def test_one_network_call_of_scaled_images_and_their_own_levels():
    calls = []

    def net(*args, **options):
        calls.append(args)
        return raw(*args, **options)

    loss, draws = build(24, tcfg=True, reg_share=0.5)
    x0, y = make_batch(24)
    loss(net, x0, y, draws)
    ((x, level, labels),) = calls
    noisy = PROCESS.noisy(x0, draws.t, draws.eps)
    rows = torch.cat([torch.arange(24), draws.rows, draws.guided, draws.guided])
    assert torch.equal(x, noisy.x[rows]) and torch.equal(level, noisy.level[rows])
    assert len(labels) == len(rows) and level.dtype == torch.float32


def test_numbers_of_an_image_do_not_depend_on_its_batch():
    loss, draws = build(16, p_uncond=0.0)
    x0, y = make_batch(16)
    whole = loss(raw, x0, y, draws)["total"]
    half = slice(8, 16)
    cut = (v[half] for v in (draws.t, draws.eps, draws.dropped, draws.y_alt))
    part = loss(raw, x0[half], y[half], Draws(*cut, torch.arange(8)))
    torch.testing.assert_close(part["total"], whole[half], rtol=1e-6, atol=0)


def test_ddpm_and_edm_draw_the_same_but_for_the_step():
    _, ours = build(32, tcfg=True)
    _, theirs = build(32, LinearSchedule(), tcfg=True)
    assert torch.equal((ours.t * 1000).long(), theirs.t)
    for name in ("eps", "dropped", "y_alt", "rows", "omega", "guided"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
