"""Losses between the features of a batch: naive transcriptions, gradients, limits.

Shapes: N = images, F = numbers of each image's features.
"""

import math

import pytest
import torch
from objective_tools import build, every_process, fake_net, make_batch

from cbdm_scale.losses.contrast import dispersion, repulsion, supervised

N, F = 7, 5
Y = torch.tensor([0, 1, 1, 2, 1, 0, 3])  # 2 and 3 have one image
ALL = torch.ones(N, dtype=torch.bool)


def features(n=N):
    rng = torch.Generator().manual_seed(0)
    return torch.randn((n, F), generator=rng, dtype=torch.float64)


def cosine(a, b):
    return a @ b / a.norm() / b.norm()


def naive_dispersion(z):
    pairs = [torch.exp(-(a - b).square().sum() / F) for a in z for b in z]
    return torch.log(sum(pairs) / len(pairs))


def naive_repulsion(z, tau=0.2):
    found = []
    for i in range(len(z)):
        total = sum(torch.exp(cosine(z[i], z[j]) / tau) for j in range(len(z)))
        found.append(-torch.log(torch.exp(cosine(z[i], z[i]) / tau) / total))
    return torch.stack(found)


def naive_supervised(z, y, seen, tau=0.2):
    found = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i and seen[a]]
        positives = [p for p in others if y[p] == y[i] and seen[i]]
        if not positives:
            found.append(z.sum() * 0)
            continue
        total = sum(torch.exp(cosine(z[i], z[a]) / tau) for a in others)
        of_each = [torch.log(torch.exp(cosine(z[i], z[p]) / tau) / total) for p in positives]
        found.append(-sum(of_each) / len(positives))
    return torch.stack(found)


SEEN = torch.tensor([True, True, True, True, True, False, True])
CASES = {
    "dispersion": (dispersion, naive_dispersion),
    "repulsion": (lambda z: repulsion(z, 0.2), naive_repulsion),
    "supervised": (
        lambda z: supervised(z, Y[: len(z)], ALL[: len(z)], 0.2)[0],
        lambda z: naive_supervised(z, Y, ALL),
    ),
    "supervised, one unseen": (
        lambda z: supervised(z, Y[: len(z)], SEEN[: len(z)], 0.2)[0],
        lambda z: naive_supervised(z, Y, SEEN),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_naive_transcription(case):
    ours, naive = CASES[case]
    z, exact = features().float().requires_grad_(), features().requires_grad_()
    found, expected = ours(z), naive(exact)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    weights = torch.linspace(0.5, 1.5, found.numel())  # every image's own, not the sum alone
    (found * weights.view(found.shape)).sum().backward()
    (expected * weights.double().view(found.shape)).sum().backward()
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_one_image_alone_has_zero_and_no_gradient(case):
    z = features(1).float().requires_grad_()
    value = CASES[case][0](z).sum()
    value.backward()
    assert value == 0 and not z.grad.any()


def test_an_image_without_another_of_its_class_has_zero():
    values, has_positive = supervised(features().float(), Y, SEEN, 0.1)
    assert has_positive.tolist() == [False, True, True, False, True, False, False]
    assert not values[~has_positive].any() and (values[has_positive] > 0).all()


def test_where_nothing_is_seen_all_is_zero_and_finite():
    z = features().float().requires_grad_()
    values, has_positive = supervised(z, Y, ~ALL, 0.1)
    values.sum().backward()
    assert not values.any() and not has_positive.any() and not z.grad.any()


def test_features_that_are_alike_have_the_values_of_the_formulas():
    same = torch.ones(N, F)
    assert dispersion(same).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(repulsion(same, 0.1), torch.full((N,), math.log(N)))
    values, _ = supervised(same, torch.zeros(N), ALL, 0.1)
    torch.testing.assert_close(values, torch.full((N,), math.log(N - 1)))


@pytest.mark.parametrize("loss", [lambda z: dispersion(z), lambda z: repulsion(z, 0.1).mean()])
def test_descent_spreads_the_features(loss):
    z = features().float().requires_grad_()
    before = torch.pdist(z.detach()).mean()
    (grad,) = torch.autograd.grad(loss(z), z)
    assert torch.pdist((z - 0.1 * grad / grad.norm()).detach()).mean() > before


def test_descent_draws_a_class_together_and_apart_from_the_others():
    z = features().float().requires_grad_()
    (grad,) = torch.autograd.grad(supervised(z, Y, ALL, 0.1)[0].sum(), z)

    def nearness(z):
        z = torch.nn.functional.normalize(z, dim=1)
        same = (Y.unsqueeze(1) == Y) & ~torch.eye(N, dtype=torch.bool)
        return (z @ z.T)[same].mean() - (z @ z.T)[Y.unsqueeze(1) != Y].mean()

    moved = (z - 0.1 * grad / grad.norm()).detach()
    assert nearness(moved) > nearness(z.detach())


# ----------------------------------------------------------------------------
# As terms of an objective.


def parts(n, process, **options):
    """Terms, draws, labels, and the features that the terms were given, by the fake network."""
    loss, draws = build(n, process, name="ddpm", p_uncond=0.3, **options)
    (x0, y), given = make_batch(n), []

    def net(*args, **asked):
        given.append(fake_net(*args, **asked))
        return given[-1]

    terms = loss(net, x0, y, draws)
    (found,) = given
    return terms, draws, y, found, draws.t.double() / loss.process.num_steps


@every_process
def test_dispersive_is_one_number_for_all_images(process):
    terms, *_, found, _ = parts(12, process, dispersive=0.4)
    h = found[1].flatten(1)
    expected = 0.4 * dispersion(h)
    torch.testing.assert_close(terms["dispersive"], expected.expand(12))
    torch.testing.assert_close(terms["total"], terms["dm"] + terms["dispersive"])
    assert expected < -0.01


@every_process
def test_ccua_contrasts_the_features_without_label_by_the_relative_step(process):
    terms, draws, _, found, relative = parts(12, process, ccua_contrast=0.7)
    expected = 0.7 * relative * repulsion(found[1][12:].flatten(1), 0.1) * ~draws.dropped
    torch.testing.assert_close(terms["ccua_contrast"].double(), expected, rtol=1e-4, atol=1e-7)
    assert draws.dropped.any() and expected.any()


@every_process
def test_coral_is_weight_temperature_time_and_supcon(process):
    """Its mean over all images is the authors' loss times the share of labels kept."""
    terms, draws, y, found, relative = parts(12, process, coral=0.5, coral_temperature=0.2)
    kept = ~draws.dropped
    values, has_positive = supervised(found[2], y, kept, 0.2)
    time = ((1 - relative) / 0.3).exp().mean()
    expected = 0.5 * 0.2 * time * values[has_positive].mean() * kept.float().mean()
    assert terms["coral"].mean().item() == pytest.approx(expected.item(), rel=1e-4)
    assert has_positive.any() and not terms["coral"][draws.dropped].any()
