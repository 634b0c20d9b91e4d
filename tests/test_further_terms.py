"""Delta-FM, T2H, two masks, alignment: values, gradients, limits, and what they lead to.

Shapes: N = batch, C, H, W = image, K = classes (label K means "none"), T = steps.
"""

from dataclasses import replace

import pytest
import torch
from objective_tools import (
    COUNTS,
    FURTHER_TERMS,
    PROCESSES,
    SHAPE,
    K,
    T,
    build,
    column,
    every_further_term,
    every_process,
    fake_net,
    make_batch,
    with_drawn,
)

from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.losses.delta_fm import other_class, velocity_target
from cbdm_scale.losses.t2h import posterior_draw
from cbdm_scale.losses.two_mask import class_weights

N = 24


def free_predictions(process, branches, **options):
    """Predictions of which any may be pulled, and where the mean of the total pulls them."""
    loss, draws = build(N, process, name="ddpm", p_uncond=0.3, **options)
    rng = torch.Generator().manual_seed(1)
    out = torch.randn((branches * N, *SHAPE), generator=rng).requires_grad_()
    x0, y = make_batch(N)
    terms = loss(lambda *a, **o: out, x0, y, draws)
    terms["total"].mean().backward()
    noisy = PROCESSES[process].noisy(x0, draws.t, draws.eps)
    parts = out.detach().split(N), out.grad.split(N)
    return terms, *parts, x0, y, draws, noisy.target


def ratio(process, t):
    """Of noise to image, in x_t."""
    if isinstance(process, EDM):
        return process.sigma(t)
    beta = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - beta, 0)[t]
    return ((1 - alpha_bar) / alpha_bar).sqrt()


# ----------------------------------------------------------------------------
# Delta-FM.


@every_process
def test_delta_fm_is_its_naive_transcription(process):
    """Image by image in the space of images at the same x_t, with the weight of L_DM there."""
    of, lam = PROCESSES[process], 0.3
    terms, (e,), (grad,), x0, y, draws, target = free_predictions(process, 1, delta_fm=lam)
    expected = 2 * (e - target)
    for i in range(N):
        others = [j for j in range(N) if y[j] != y[i]]
        j = others[int(draws.term_draws["negative"][i] * len(others))]
        s = float(ratio(of, draws.t[i]))
        d = of.config.sigma_data if isinstance(of, EDM) else 1.0
        noise_share = s**2 / (s**2 + d**2)
        # dx0 / d(raw output) at this x_t is c_out under EDM, and -sigma / alpha under DDPM.
        per = s * d / (s**2 + d**2) ** 0.5 if isinstance(of, EDM) else -s
        x_hat_off = per * (e[i] - target[i])  # predicted image, less the true one
        off = x_hat_off - noise_share * (x0[j] - x0[i])
        value = 0.0 if draws.dropped[i] else float(-lam * off.square().mean() / per**2)
        assert terms["delta_fm"][i].item() == pytest.approx(value, rel=1e-4, abs=1e-6)
        if not draws.dropped[i]:
            expected[i] -= 2 * lam * off / per
    torch.testing.assert_close(grad, expected / e[0].numel() / N, rtol=1e-4, atol=1e-7)
    assert torch.equal(terms["total"], terms["dm"] + terms["delta_fm"])
    assert draws.dropped.any() and not terms["delta_fm"][draws.dropped].any()


@every_process
def test_in_velocities_only_the_image_of_the_negative_differs(process):
    """The negative of another image with the same noise, each in its own x_t."""
    of, (x0, _) = PROCESSES[process], make_batch(N)
    t = of.step(torch.linspace(0.01, 0.99, N, dtype=torch.float64))
    eps, other = torch.randn(N, *SHAPE), x0.flip(0)
    target = of.noisy(x0, t, eps).target
    found = velocity_target(of, target, other - x0, t)
    if isinstance(of, EDM):  # its raw output is a velocity
        expected = of.noisy(other, t, eps).target
    else:  # alpha (alpha eps - sigma x0) is the noise less alpha sigma x0, but for x_t
        alpha_bar = column(of.alpha_bar[t]).float()
        pull = (alpha_bar * (1 - alpha_bar)).sqrt()
        expected = eps - pull * (other - x0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_delta_fm_moves_predictions_by_class(spread):
    """The best number for each class, at one step; nothing moves if all look alike."""
    of = PROCESSES["ddpm"]
    n, lam, means = 4096, 0.2, spread * torch.tensor([-0.8, 0.1, 0.3, 0.9])
    loss, draws = build(n, name="ddpm", p_uncond=0.0, delta_fm=lam)
    draws = replace(draws, t=torch.full((n,), 250), eps=draws.eps[:, :1, :1, :1])
    y = torch.arange(n) % K
    x0 = column(means[y])
    free = torch.zeros(K, requires_grad=True)  # e of each class, whatever x_t
    total = loss(lambda x, level, y, **o: column(free[y]), x0, y, draws)["total"].mean()
    (grad,) = torch.autograd.grad(total, free, create_graph=True)
    (curvature,) = torch.autograd.grad(grad.sum(), free)
    best = -grad.detach() / curvature  # it is quadratic, and no class sees another's number
    noise = torch.stack([draws.eps[y == c].mean() for c in range(K)])
    others = torch.stack([means[torch.arange(K) != c].mean() for c in range(K)])
    alpha_bar = of.alpha_bar[250].float()
    moved = lam / (1 - lam) * (alpha_bar * (1 - alpha_bar)).sqrt() * (means - others)
    torch.testing.assert_close(best, noise - moved, rtol=0, atol=2e-3)
    # A bright class gets less of the noise taken for noise: its image is predicted brighter.
    assert not spread or moved.abs().max() > 0.1


def test_negatives_are_of_other_classes_and_all_of_these_alike():
    y = torch.tensor([0, 1, 1, 2, 0, 1])
    seen = torch.zeros(6, 6)
    for u in torch.linspace(0, 1, 1201, dtype=torch.float64)[1:-1]:
        index, found = other_class(y, u.expand(6))
        assert found.all()
        seen[torch.arange(6), index] += 1
    allowed = y.unsqueeze(1) != y
    assert not seen[~allowed].any()
    shares = seen / seen.sum(1, keepdim=True)
    torch.testing.assert_close(
        shares, allowed / allowed.sum(1, keepdim=True), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("n", [1, 5])
def test_where_all_are_of_one_class_there_is_no_negative(n):
    loss, draws = build(n, name="ddpm", delta_fm=0.5, p_uncond=0.0)
    x0, y = make_batch(n)[0], torch.full((n,), 2)
    terms = loss(fake_net, x0, y, draws)
    assert not terms["delta_fm"].any() and torch.equal(terms["total"], terms["dm"])


# ----------------------------------------------------------------------------
# T2H.


@every_process
def test_t2h_is_its_naive_transcription(process):
    of = PROCESSES[process]
    terms, (e,), (grad,), x0, y, draws, target = free_predictions(process, 1, t2h=True)
    expected, moved = 2 * (e - target), 0
    for i in range(N):
        s = float(ratio(of, draws.t[i]))
        blurred = x0[i].double() + s * draws.eps[i].double()
        logits = [-float((blurred - x.double()).square().sum()) / (2 * s**2) for x in x0]
        p = torch.tensor(logits, dtype=torch.float64).softmax(0)
        z = int((p.cumsum(0) < draws.term_draws["transfer"][i]).sum())
        d = of.config.sigma_data if isinstance(of, EDM) else 1.0
        per = s * d / (s**2 + d**2) ** 0.5 if isinstance(of, EDM) else -s
        taken = target[i] + (x0[z] - x0[i]) / per
        value = float((e[i] - taken).square().mean() - (e[i] - target[i]).square().mean())
        if draws.dropped[i] or COUNTS[y[z]] < COUNTS[y[i]]:
            value, taken = 0.0, target[i]
        moved += value != 0
        assert terms["t2h"][i].item() == pytest.approx(value, rel=1e-3, abs=1e-5)
        expected[i] = 2 * (e[i] - taken)
    torch.testing.assert_close(grad, expected / e[0].numel() / N, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(terms["total"], terms["dm"] + terms["t2h"])
    assert moved or process != "ddpm"


def test_the_target_taken_is_that_of_the_other_image_at_the_same_x_t():
    """At much noise a rare image takes a frequent one, and never the reverse."""
    n = 2
    loss, draws = build(n, name="ddpm", t2h=True, p_uncond=0.0)
    drawn = with_drawn(draws, transfer=torch.tensor([0.9, 0.1], dtype=torch.float64))
    draws = replace(drawn, t=torch.full((n,), T - 1))
    x0, y = make_batch(n)[0], torch.tensor([3, 0])  # of 5 and of 60 images
    found = {}

    def net(x, level, labels, **o):
        found["x"] = x
        return torch.zeros_like(x)

    terms = loss(net, x0, y, draws)  # with e = 0 the squared targets themselves
    alpha_bar = PROCESSES["ddpm"].alpha_bar[T - 1]
    other = (found["x"][0] - alpha_bar.sqrt() * x0[1]) / (1 - alpha_bar).sqrt()
    assert terms["total"][0].item() == pytest.approx(other.square().mean().item(), rel=1e-4)
    assert terms["t2h"][1] == 0
    assert loss(net, x0, y.flip(0), draws)["t2h"][0] == 0


def test_images_are_drawn_from_the_posterior():
    """Frequencies over many uniform numbers, of images whose distances are known."""
    x0 = torch.tensor([0.0, 0.5, 2.0]).view(3, 1, 1, 1)
    noise, sigma = (
        torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1, 1),
        torch.tensor([0.5, 1.0, 2.0]),
    )
    u = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    drawn = torch.stack([posterior_draw(x0, noise, sigma, v.expand(3)) for v in u])
    for i in range(3):
        at = x0[i] + sigma[i] * noise[i]
        p = (-(at - x0).square().flatten() / (2 * sigma[i] ** 2)).softmax(0)
        share = torch.bincount(drawn[:, i], minlength=3) / 500
        torch.testing.assert_close(share, p, atol=3e-3, rtol=0)


def test_with_little_noise_every_image_stays_what_it_is():
    x0, _ = make_batch(N)
    u = torch.rand(N, dtype=torch.float64)
    own = posterior_draw(x0, torch.randn(N, *SHAPE), torch.full((N,), 0.01), u)
    assert torch.equal(own, torch.arange(N))


# ----------------------------------------------------------------------------
# Two masks, alignment.


def test_frequent_classes_are_held_together_most():
    """K w (p - d q): by hand for counts 60, 25, 10, 5."""
    p = torch.tensor([0.60, 0.25, 0.10, 0.05])
    q = torch.tensor([5.0, 12.0, 30.0, 60.0]) / 107
    found = class_weights(COUNTS, 0.5, 0.2)
    torch.testing.assert_close(found, 2 * (p - 0.2 * q))
    assert class_weights(COUNTS, 10.0, 0.5).min() == -0.25  # or the loss had no minimum
    even = class_weights(torch.full((4,), 7), 1.0, 0.2)
    torch.testing.assert_close(even, torch.full((4,), 0.8))


@every_process
def test_both_passes_are_pulled_together_by_the_weight_of_the_class(process):
    options = {"two_mask": 0.8, "two_mask_diversity": 0.1}
    terms, (e, again), (grad, grad_again), _, y, draws, target = free_predictions(
        process, 2, **options
    )
    weight = class_weights(COUNTS, 0.8, 0.1)[y] * ~draws.dropped
    expected = weight * (e - again).square().flatten(1).mean(1)
    torch.testing.assert_close(terms["two_mask"], expected)
    per = 2 / e[0].numel() / N
    pull = per * column(weight) * (e - again)
    torch.testing.assert_close(grad_again, -pull)
    torch.testing.assert_close(grad, per * (e - target) + pull)


def test_a_network_without_dropout_agrees_with_itself():
    loss, draws = build(8, two_mask=1.0)
    assert not loss(fake_net, *make_batch(8), draws)["two_mask"].any()


@every_process
def test_alignment_pulls_both_sides_by_the_relative_step(process):
    terms, (e, none), (grad, grad_none), _, _, draws, target = free_predictions(
        process, 2, ccua_align=0.7
    )
    weight = 0.7 * draws.t.float() / PROCESSES[process].num_steps * ~draws.dropped
    torch.testing.assert_close(
        terms["ccua_align"], weight * (e - none).square().flatten(1).mean(1)
    )
    per = 2 / e[0].numel() / N
    pull = per * column(weight) * (e - none)
    torch.testing.assert_close(grad_none, -pull)
    torch.testing.assert_close(grad, per * (e - target) + pull)
    assert weight.any()


# ----------------------------------------------------------------------------
# All of them.


@every_process
@every_further_term
def test_with_every_label_dropped_they_leave_the_denoising_loss(process, term):
    loss, draws = build(8, process, name="ddpm", **FURTHER_TERMS[term] | {"p_uncond": 1.0})
    x0, y = make_batch(8)
    terms = loss(fake_net, x0, y, draws)
    if term == "dispersive":  # it knows no label
        assert terms[term].all()
    else:
        assert torch.equal(terms["total"], terms["dm"]) and not terms[term].any()


@every_further_term
def test_they_leave_the_draws_and_values_of_the_others(term):
    x0, y = make_batch(N)
    plain, before = build(N, tcfg=True)
    loss, draws = build(N, tcfg=True, **FURTHER_TERMS[term])
    for field in ("t", "eps", "dropped"):
        assert torch.equal(getattr(draws, field), getattr(before, field)), field
    terms, expected = loss(fake_net, x0, y, draws), plain(fake_net, x0, y, before)
    for name in expected.keys() - {"total"}:
        assert torch.equal(terms[name], expected[name]), name
