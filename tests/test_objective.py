"""All objectives, under both processes: values, gradients, limits.

Shapes: N = batch, M = images that the regulariser has predictions of, C, H, W = image, K =
classes (label K means "none"), T = steps.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from objective_tools import (
    COUNTS,
    CPU,
    OBJECTIVES,
    PROCESSES,
    SHAPE,
    WEIGHTS,
    K,
    T,
    build,
    column,
    every_objective,
    every_process,
    fake_net,
    make_batch,
    rows_of,
    weights_of,
    with_drawn,
)

from cbdm_scale.diffusion.edm import EDM, scaling
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.tcfg import tcfg_terms
from cbdm_scale.losses.term import HostDraws

# ----------------------------------------------------------------------------
# Values and gradients.


def naive_image(process, x0, draws, i, weights):
    """Of image i in float64: a function of label and strength, its target, lambda, and t / T.

    Under EDM in the space of images, with denoisers D and lambda(sigma), without raw targets.
    """
    image, noise = x0[i : i + 1].double(), draws.eps[i : i + 1].double()
    if isinstance(process, EDM):
        own, u = process.config, draws.t[i : i + 1]
        sigma = (own.p_mean + own.p_std * torch.special.ndtri(u)).exp()
        x, c = image + column(sigma) * noise, scaling(sigma, own.sigma_data)

        def denoise(label, omega):
            raw = fake_net(column(c.c_in) * x, c.c_noise, label, omega, weights=weights)
            return column(c.c_skip) * x + column(c.c_out) * raw

        weight = (sigma**2 + own.sigma_data**2) / (sigma * own.sigma_data) ** 2
        return denoise, image, float(weight), float(u)

    t, alpha_bar = int(draws.t[i]), 1.0
    for s in range(t + 1):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * s / (T - 1))
    x_t = alpha_bar**0.5 * image + (1 - alpha_bar) ** 0.5 * noise

    def predict_eps(label, omega):
        return fake_net(x_t, torch.tensor([t]), label, omega, weights=weights)

    return predict_eps, noise, 1.0, t / T


def naive_terms(process, x0, y, draws, config, weights):
    """Equations 1, 4, 32 and 33 as one would read them aloud, image by image."""
    terms = []
    seen, taught = weights_of(draws)
    y_alt = dict(
        zip(rows_of(draws)[0].tolist(), draws.term_draws.get("y_alt", ()), strict=True)
    )
    for i in range(len(x0)):
        net, target, scale, share = naive_image(process, x0, draws, i, weights.double())

        def predict(label, omega=None, net=net):
            omega = None if omega is None else omega.view(1)
            return net(torch.tensor([int(label)]), omega)

        def norm(difference, scale=scale):
            return scale * sum(v * v for v in difference.flatten()) / difference.numel()

        h = predict(K if draws.dropped[i] else y[i])
        term = {"dm": norm(h - target)}
        if config.name == "cbdm":
            h_alt = predict(y_alt[i]) if i in y_alt else h
            weight = config.tau * share * float(seen[i])
            term["r"] = weight * norm(h - h_alt.detach())
            term["rc"] = weight * norm(h.detach() - h_alt)
        if config.tcfg:
            omega = draws.term_draws["omega"][i].double()
            h_omega, push = predict(y[i], omega), omega * (h - predict(K))
            weight = float(taught[i])
            term["g"] = weight * norm(h_omega - push.detach() - target)
            term["gc"] = weight * config.tcfg_gamma * norm(h_omega.detach() - push - target)
        total = sum(v * (config.gamma if name == "rc" else 1) for name, v in term.items())
        terms.append({"total": total, **term})
    return {name: torch.stack([term[name] for term in terms]) for name in terms[0]}


@every_process
@every_objective
def test_an_objective_has_the_values_and_gradient_of_its_naive_transcription(
    process, objective
):
    """Equations 1, 4, 32, 33; the gradient is that of the mean over all images."""
    config = LossConfig(**OBJECTIVES[objective])
    loss, draws = build(24, process, **OBJECTIVES[objective])
    x0, y = make_batch(24)
    ours, exact = WEIGHTS.clone().requires_grad_(), WEIGHTS.clone().requires_grad_()
    terms = loss(lambda *a, **o: fake_net(*a, **o, weights=ours), x0, y, draws)
    expected = naive_terms(PROCESSES[process], x0, y, draws, config, exact)
    assert list(terms) == list(expected)
    for name, values in expected.items():
        assert terms[name].shape == (24,) and terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name].double(), values, rtol=5e-5, atol=1e-8)
    terms["total"].mean().backward()
    expected["total"].mean().backward()
    torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-4, atol=1e-6)
    assert (terms["total"] == terms["dm"])[draws.dropped].all()


def free_predictions(loss, draws, n, name="total"):
    """N + M + 2 N free predictions and the gradient of the mean there, split by branch."""
    seen, taught = (len(rows) for rows in rows_of(draws))
    sizes = [n, seen, taught, taught]
    rng = torch.Generator().manual_seed(1)
    out = torch.randn((sum(sizes), *SHAPE), generator=rng).requires_grad_()
    x0, y = make_batch(n)
    loss(lambda *a, **o: out, x0, y, draws)[name].mean().backward()
    return out.detach().split(sizes), out.grad.split(sizes)


@every_process
@every_objective
def test_gradients_stop_where_the_equations_say(process, objective):
    """With CHW and the mean over all N images, dropped ones included, in every divisor:

    Equation 4: d/dh = 2 w (h - h'), d/dh' = -2 gamma w (h - h').
    With d = g - omega delta - eps, Equation 32: 2 d on g; Equation 33, where gamma is 1/4:
    -(omega / 2) d on h and its negative on the prediction without label.
    """
    n, process_of = 24, PROCESSES[process]
    config = LossConfig(**OBJECTIVES[objective])
    loss, draws = build(n, process, **OBJECTIVES[objective])
    (h, h_alt, h_none, h_omega), (grad, grad_alt, grad_none, grad_omega) = free_predictions(
        loss, draws, n
    )
    (seen, taught), (weights, kept) = rows_of(draws), weights_of(draws)
    target = process_of.noisy(make_batch(n)[0], draws.t, draws.eps).target
    per = 2 / h[0].numel() / n
    expected = per * (h - target)
    for m, i in enumerate(seen.tolist()):
        weight = config.tau * float(draws.t[i]) / process_of.num_steps * weights[i]
        pull = per * weight * (h[i] - h_alt[m])
        expected[i] += pull
        torch.testing.assert_close(grad_alt[m], -config.gamma * pull)
    for j, i in enumerate(taught.tolist()):
        omega = draws.term_draws["omega"][i]
        d = per * kept[i] * (h_omega[j] - omega * (h[i] - h_none[j]) - target[i])
        expected[i] -= config.tcfg_gamma * omega * d
        torch.testing.assert_close(grad_none[j], config.tcfg_gamma * omega * d)
        torch.testing.assert_close(grad_omega[j], d)
    torch.testing.assert_close(grad, expected)


@every_process
@pytest.mark.parametrize(
    ("term", "pulled"),
    [("dm", [0]), ("r", [0]), ("rc", [1]), ("g", [3]), ("gc", [0, 2])],
)
def test_the_single_terms_pull_one_side_each(process, term, pulled):
    """0 is the own prediction, 1 that of y', 2 that without label, 3 that with omega."""
    loss, draws = build(16, process, tcfg=True)
    _, grads = free_predictions(loss, draws, 16, term)
    assert [i for i, grad in enumerate(grads) if grad.any()] == pulled


GOLDEN = {
    ("ddpm", "ddpm"): (2.054593086, [-0.1348418, -1.4195755, 0.0327646, 0.471958, 0.457007]),
    ("ddpm", "cbdm"): (2.910324574, [-0.0282312, -1.9593985, -0.0218609, 0.7755915, 0.457007]),
    ("ddpm", "share"): (2.321313143, [-0.120196, -1.5468495, 0.0148882, 0.5971922, 0.457007]),
    ("ddpm", "tcfg"): (3.525039196, [0.1010835, -1.6406696, 0.2928878, 0.9855, 0.6244412]),
    ("ddpm", "both"): (5.329685688, [0.2778893, -0.7633844, 0.1905681, 0.6253384, 1.9129053]),
    ("edm", "ddpm"): (3.340857506, [0.3468318, -0.7550821, 0.2913648, 0.7876627, 0.9119964]),
    ("edm", "cbdm"): (4.257260323, [0.4570732, -1.3211632, 0.2278236, 1.117277, 0.9119964]),
    ("edm", "share"): (3.628320456, [0.3622662, -0.8927056, 0.2707085, 0.9188229, 0.9119964]),
    ("edm", "tcfg"): (8.239982605, [1.0500623, -0.2411332, 0.8578839, 1.6048506, 1.3312522]),
    ("edm", "both"): (11.220090866, [0.9332378, 0.2833275, 0.4564297, 0.9030888, 3.4850812]),
}


@pytest.mark.parametrize(("process", "objective"), GOLDEN)
def test_values_under_a_fixed_seed_stay(process, objective):
    """A change belongs under "Numbers" in CHANGELOG.md."""
    options = {
        "ddpm": {"name": "ddpm"},
        "cbdm": {},
        "share": {"reg_share": 0.5, "tau": 0.3},
        "tcfg": {"name": "ddpm", "tcfg": True},
        "both": {"tcfg": True, "omega_max": 2.0, "p_uncond": 0.3},
    }[objective]
    loss, drawer = build_loss(LossConfig(**options), PROCESSES[process], COUNTS, 5, 16)
    draws = drawer(torch.arange(100, 116), (3, 8, 8), CPU)
    rng = torch.Generator().manual_seed(0)
    x0 = torch.rand((16, 3, 8, 8), generator=rng) * 2 - 1
    y = torch.randint(K, (16,), generator=rng)
    weights = WEIGHTS.clone().requires_grad_()
    total = loss(lambda *a, **o: fake_net(*a, **o, weights=weights), x0, y, draws)["total"]
    total.mean().backward()
    value, gradient = GOLDEN[process, objective]
    assert total.mean().item() == pytest.approx(value, rel=1e-6)
    assert weights.grad.tolist() == pytest.approx(gradient, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_the_weight_is_tau_times_t_over_T(t):
    """With predictions one apart everywhere, L_r is w(t) itself."""

    def net(x, level, y, omega=None, augment=None):
        return (y == 1).float().view(-1, 1, 1, 1).expand_as(x)

    loss, draws = build(2, tau=0.7, p_uncond=0.0)
    drawn = with_drawn(draws, y_alt=torch.tensor([1, 3]))
    fixed = replace(drawn, t=torch.full((2,), t), eps=torch.zeros(2, *SHAPE))
    terms, weight = loss(net, make_batch(2)[0], torch.tensor([0, 2]), fixed), 0.7 * t / T
    assert terms["dm"].tolist() == [0, 0]
    assert terms["r"].tolist() == terms["rc"].tolist() == pytest.approx([weight, 0])
    assert terms["total"].tolist() == pytest.approx([1.25 * weight, 0])


# ----------------------------------------------------------------------------
# Limits.


def loss_and_gradient(loss, x0, y, draws):
    weights = WEIGHTS.clone().requires_grad_()
    total = loss(lambda *a, **o: fake_net(*a, **o, weights=weights), x0, y, draws)["total"]
    total.mean().backward()
    return total.detach(), weights.grad


@every_process
def test_tau_zero_is_ddpm_bit_for_bit(process):
    x0, y = make_batch(32)
    cbdm, draws = build(32, process, tau=0.0)
    ddpm, same_draws = build(32, process, name="ddpm")
    total, grad = loss_and_gradient(cbdm, x0, y, draws)
    expected_total, expected_grad = loss_and_gradient(ddpm, x0, y, same_draws)
    assert torch.equal(total, expected_total) and torch.equal(grad, expected_grad)


def test_the_regulariser_is_zero_if_the_other_label_is_the_same():
    loss, draws = build(32, p_uncond=0.0)
    x0, y = make_batch(32)
    terms = loss(fake_net, x0, y, with_drawn(draws, y_alt=y))
    assert not terms["r"].any() and not terms["rc"].any()
    assert torch.equal(terms["total"], terms["dm"])


@every_process
def test_at_strength_zero_both_terms_of_guidance_are_the_denoising_loss(process):
    x0, y = make_batch(8)
    loss, draws = build(8, process, name="ddpm", tcfg=True)
    terms = loss(fake_net, x0, y, with_drawn(draws, omega=torch.zeros(8)))
    kept = ~draws.dropped
    torch.testing.assert_close(terms["g"][kept], terms["dm"][kept])
    torch.testing.assert_close(terms["gc"][kept], terms["dm"][kept] / 4)


def test_equation_33_has_the_noise_that_its_print_lacks():
    """With exact predictions of a noise that is certain, both terms are zero."""
    eps = torch.randn(5, *SHAPE)
    g, gc = tcfg_terms(eps, eps, eps, eps, torch.rand(5), gamma=0.25)
    assert not g.any() and not gc.any()


@every_process
@every_objective
def test_dropped_labels_weigh_nothing_beyond_the_denoising_loss(process, objective):
    loss, draws = build(64, process, **OBJECTIVES[objective] | {"p_uncond": 0.5})
    x0, y = make_batch(64)
    terms, dropped = loss(fake_net, x0, y, draws), draws.dropped
    assert 0 < dropped.sum() < 64
    seen, taught = (weights > 0 for weights in weights_of(draws))
    assert not (seen | taught)[dropped].any()
    for name in terms.keys() - {"total", "dm"}:
        assert not terms[name][dropped].any(), name
    assert torch.equal(terms["total"][dropped], terms["dm"][dropped])
    if seen.any():
        assert ((terms["r"] > 0)[seen]).sum() > 0.2 * seen.sum()  # the others drew y' = y
        assert not terms["r"][~seen].any()
    if taught.any():
        assert (terms["g"][taught] > 0).all()


@every_process
@every_objective
def test_with_every_label_dropped_it_is_the_denoising_loss(process, objective):
    loss, draws = build(8, process, **OBJECTIVES[objective] | {"p_uncond": 1.0})
    x0, y = make_batch(8)
    assert draws.dropped.all() and not any(weights.any() for weights in weights_of(draws))
    terms = loss(fake_net, x0, y, draws)
    assert torch.equal(terms["total"], terms["dm"])
    assert not any(terms[name].any() for name in terms.keys() - {"total", "dm"})
    assert torch.equal(loss(fake_net, x0, (y + 1) % K, draws)["total"], terms["total"])


@every_process
@every_objective
def test_terms_leave_each_others_draws_and_values(process, objective):
    """What an objective shares with the denoising loss alone is the same, bit for bit."""
    x0, y = make_batch(32)
    options = OBJECTIVES[objective] | {"p_uncond": 0.3}
    loss, draws = build(32, process, **options)
    plain, before = build(32, process, name="ddpm", p_uncond=0.3)
    assert not before.term_draws
    for field in ("t", "eps", "dropped"):
        assert torch.equal(getattr(draws, field), getattr(before, field)), field
    terms = loss(fake_net, x0, y, draws)
    assert torch.equal(terms["dm"], plain(fake_net, x0, y, before)["total"])
    both, drawn = build(32, process, **options | {"tcfg": True})
    together = both(fake_net, x0, y, drawn)
    for name in terms.keys() & {"r", "rc", "g", "gc"}:
        assert torch.equal(terms[name], together[name]), name


@pytest.mark.parametrize("share", [0.5, 0.3, 0.01])
def test_a_share_of_the_regulariser_leaves_the_expectation(share):
    """The mean over all windows is the loss, and the gradient, of the whole: 0.3 is 2 of 8."""
    n = 8
    x0, y = make_batch(n)
    loss, draws = build(n, p_uncond=0.3)
    expected = loss_and_gradient(loss, x0, y, draws)
    found = []
    for start in range(n):
        places = (np.arange(n) - start) % n
        rows, seen = HostDraws(draws.dropped.numpy(), {}, places, n).window(share)
        rows, y_alt = torch.from_numpy(rows), draws.term_draws["y_alt"]
        drawn = {"rows": rows, "seen": torch.from_numpy(seen), "y_alt": y_alt[rows]}
        found.append(loss_and_gradient(loss, x0, y, with_drawn(draws, **drawn)))
    assert not torch.equal(found[0][0], expected[0])
    for values, whole in zip(zip(*found, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(values).mean(0), whole)
