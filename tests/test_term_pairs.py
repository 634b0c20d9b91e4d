"""Every pair of terms in one objective, on a small network: neither changes the other.

Shapes: N = batch, K = classes.
"""

from functools import cache
from itertools import combinations

import pytest
import torch
from objective_tools import COUNTS, CPU, FURTHER_TERMS, PROCESSES, K

from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import TERM_OPTIONS, LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import backbone_config
from cbdm_scale.models.spec import NetworkSpec

N = 12
TERMS = {"cbdm": {"name": "cbdm"}, "tcfg": {"tcfg": True}, **FURTHER_TERMS}
PAIRS = list(combinations(TERMS, 2))


@cache
def network():
    """With every layer that a term may want, moved away from its start."""
    torch.manual_seed(0)
    config = backbone_config(
        "unet",
        channels=8,
        multipliers=(1, 2),
        num_blocks=1,
        attention=(),
        groups=4,
        dropout=0.5,
    )
    net = build(
        NetworkSpec(model=config, channels=1, image_size=8, num_classes=K, omega_max=1.0)
    )
    net.add_projection(8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return net


def one_step(process, *names, dropout=False):
    """Terms (N,) and the gradient of their mean, of all parameters in one piece."""
    options = {"name": "ddpm", "p_uncond": 0.3, "reg_share": 0.5}
    for name in names:
        options |= TERMS[name]
    loss, drawer = build_loss(LossConfig(**options), PROCESSES[process], COUNTS, 5, N)
    rng = torch.Generator().manual_seed(0)
    x0 = torch.rand((N, 1, 8, 8), generator=rng) * 2 - 1
    y = torch.randint(K, (N,), generator=rng)
    net = network().train(dropout)
    terms = loss(net, x0, y, drawer(torch.arange(N), (1, 8, 8), CPU))
    parameters = list(net.parameters())
    grads = torch.autograd.grad(terms["total"].mean(), parameters, materialize_grads=True)
    found = {name: values.detach() for name, values in terms.items()}
    return found, torch.cat([grad.flatten() for grad in grads])


@cache
def alone(process, *names):
    return one_step(process, *names)


def test_every_term_that_may_be_added_is_paired():
    assert set(TERMS) == {"cbdm", *TERM_OPTIONS}


@pytest.mark.parametrize("process", ["ddpm", "edm"])
@pytest.mark.parametrize("pair", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_two_terms_add_and_leave_each_other_alone(process, pair):
    """Their values and gradients over the denoising loss are those that each has alone."""
    together, grad = one_step(process, *pair)
    (a, grad_a), (b, grad_b), (dm, grad_dm) = (
        *(alone(process, name) for name in pair),
        alone(process),
    )
    assert set(together) == set(a) | set(b)
    for name, values in together.items():
        if name != "total":
            expected = a.get(name, b.get(name))
            torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4)
    total = a["total"] + b["total"] - dm["total"]
    torch.testing.assert_close(together["total"], total, rtol=1e-3, atol=1e-4)
    assert grad.isfinite().all()
    difference = (grad - (grad_a + grad_b - grad_dm)).norm() / grad.norm()
    assert difference < 1e-3, difference


@pytest.mark.parametrize("pair", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_with_dropout_every_pair_is_finite_and_each_term_shows(pair):
    terms, grad = one_step("ddpm", *pair, dropout=True)
    assert grad.isfinite().all() and grad.any()
    for name, values in terms.items():
        assert values.isfinite().all() and values.any(), name


def test_all_terms_together_are_finite():
    terms, grad = one_step("ddpm", *TERMS, dropout=True)
    assert len(terms) == 2 + 2 + 2 + 7  # total, dm; r, rc; g, gc; a name each
    assert terms["total"].isfinite().all() and grad.isfinite().all()
