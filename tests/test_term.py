"""Terms of an objective: one network call for all, and what a further one has to bring.

Shapes: N = batch, M = images that the regulariser has predictions of, C, H, W = image, K =
classes (label K means "none"), T = steps.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from objective_tools import (
    COUNTS,
    CPU,
    FURTHER_TERMS,
    OBJECTIVES,
    PROCESSES,
    SHAPE,
    K,
    build,
    every_objective,
    every_process,
    fake_net,
    make_batch,
    rows_of,
    with_drawn,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.draws import Drawer, Packed
from cbdm_scale.losses.objective import Objective
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.losses.term import Branch, Draws, Values, mean_sq
from cbdm_scale.models.build import build as build_net
from cbdm_scale.models.options import backbone_config
from cbdm_scale.models.spec import NetworkSpec


def asked(loss, x0, y, draws):
    """What the network was given in its only call."""
    calls = []

    def net(x, level, y, omega=None, augment=None):
        calls.append((x, level, y, omega, augment))
        return fake_net(x, level, y, omega)

    terms = loss(net, x0, y, draws)
    (call,) = calls
    return terms, call


@every_process
@every_objective
def test_all_predictions_come_from_one_network_call_and_none_twice(process, objective):
    loss, draws = build(40, process, **OBJECTIVES[objective])
    draws = replace(draws, augment=torch.randn(40, 9))
    x0, y = make_batch(40)
    _, (x, level, labels, omega, augment) = asked(loss, x0, y, draws)
    noisy = PROCESSES[process].noisy(x0, draws.t, draws.eps)
    seen, taught = rows_of(draws)
    rows = torch.cat([torch.arange(40), seen, taught, taught])
    assert torch.equal(x, noisy.x[rows]) and torch.equal(level, noisy.level[rows])
    assert torch.equal(augment, draws.augment[rows])
    y_in, none = torch.where(draws.dropped, K, y), torch.full_like(taught, K)
    y_alt = draws.term_draws.get("y_alt", y[:0])
    assert torch.equal(labels, torch.cat([y_in, y_alt, none, y[taught]]))
    if not len(taught):
        assert omega is None
        return
    strengths = draws.term_draws["omega"]
    silent = torch.zeros(40 + len(seen) + len(taught))
    assert torch.equal(omega, torch.cat([silent, strengths]))
    distinct = set(zip(rows.tolist(), labels.tolist(), omega.tolist(), strict=True))
    # Asked again: y' = y, as Algorithm 1 has it, and "none" of a dropped label, which weighs 0.
    own = int((y_alt == y_in[seen]).sum())
    assert len(distinct) == len(rows) - own - int(draws.dropped.sum())


@every_process
@every_objective
def test_the_loss_of_an_image_does_not_depend_on_its_batch(process, objective):
    """So gradient accumulation and the number of workers change nothing."""
    config = LossConfig(**OBJECTIVES[objective])
    loss, drawer = build_loss(config, PROCESSES[process], COUNTS, 5, batch_size=24)
    x0, y = make_batch(24)
    images = torch.arange(10**10, 10**10 + 24)
    whole = loss(fake_net, x0, y, drawer(images, SHAPE, CPU))
    for rows in (torch.arange(0, 24, 3), torch.tensor([7]), torch.arange(23, -1, -1)):
        part = loss(fake_net, x0[rows], y[rows], drawer(images[rows], SHAPE, CPU))
        for name, values in part.items():
            torch.testing.assert_close(values, whole[name][rows], rtol=1e-6, atol=0)


every_term = pytest.mark.parametrize(
    "options",
    [*OBJECTIVES.values(), *FURTHER_TERMS.values()],
    ids=[*OBJECTIVES, *FURTHER_TERMS],
)


@every_term
def test_losses_are_fp32_whatever_the_network_computes_in(options):
    x0, y = make_batch(8)
    loss, draws = build(8, **options)

    def net(*args, **options):
        found = fake_net(*args, **options)
        is_one = isinstance(found, torch.Tensor)
        return found.bfloat16() if is_one else tuple(part.bfloat16() for part in found)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(net, x0, y, draws)
    assert all(values.dtype == torch.float32 for values in terms.values())


@every_process
@every_term
def test_no_shape_depends_on_what_was_drawn_and_nothing_waits_for_it(process, options):
    """With tensors of a GPU that have shapes and no values: so a step can be captured."""
    loss, drawer = build_loss(LossConfig(**options), PROCESSES[process], COUNTS, 5, 8)
    packed, n = drawer.on_host(torch.arange(4), torch.zeros(4, 9)), 4
    process_there = deepcopy(loss.process)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = Packed(torch.empty_like(packed.data, device="cuda"), packed.layout).arrays()
        images, augment = there.pop("images"), there.pop("augment")
        eps, x0 = torch.empty(2, n, *SHAPE, device="cuda")
        draws = Draws(there.pop("t"), eps, there.pop("dropped"), there, augment)
        if isinstance(process_there, torch.nn.Module):
            process_there.to("cuda")

        def net(x, level, y, omega=None, augment=None, features=False):
            assert x.is_cuda and level.is_cuda and y.is_cuda and augment.is_cuda
            out = x * level.to(x.dtype).view(-1, 1, 1, 1)
            return (out, out.flatten(2), out.flatten(1)) if features else out

        terms = replace(loss, process=process_there)(net, x0, images % K, draws)
    assert all(v.is_cuda and v.shape == (n,) for v in terms.values())


@dataclass(frozen=True)
class Alignment:
    """A term in a few lines: |h - h_none|^2, weighted by a number of its own of each image."""

    purposes = ("strength",)

    def draw(self, host):
        return {"strength": (host.uniform["strength"] * ~host.dropped).astype(np.float32)}

    def branches(self, y: torch.Tensor, draws: Draws):
        return {"none": Branch(torch.full_like(y, K))}

    def values(self, predicted):
        apart = mean_sq(predicted.e - predicted.further["none"])
        value = predicted.draws.term_draws["strength"] * apart
        return Values((value,), {"alignment": value})


def test_a_further_term_is_one_class_and_shares_the_predictions_of_others():
    loss, draws = build(16, tcfg=True, p_uncond=0.3)
    terms = (*loss.terms, Alignment())
    more = Objective(loss.process, K, terms)
    drawn = Drawer(loss.process, terms, 0.3, 5, 16)(torch.arange(16), SHAPE, CPU)
    x0, y = make_batch(16)
    before, (x_before, *_) = asked(loss, x0, y, draws)
    after, (x, *_) = asked(more, x0, y, drawn)
    assert torch.equal(x, x_before)  # the prediction without label is TCFG's
    for name in before.keys() - {"total"}:
        assert torch.equal(after[name], before[name]), name
    assert list(after)[-1] == "alignment"
    assert torch.equal(after["total"], before["total"] + after["alignment"])
    assert torch.equal(after["alignment"] > 0, ~draws.dropped)


U_NET = {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "attention": ()}
TRANSFORMER = {"depth": 1, "width": 16, "heads": 2}
SMALL = {
    "unet": {**U_NET, "groups": 4},
    "ddpmpp": U_NET,
    "ncsnpp": U_NET,
    "dit": TRANSFORMER,
    "vit": TRANSFORMER,
}


def all_dropped(draws):
    dropped = replace(draws, dropped=torch.ones_like(draws.dropped))
    seen = draws.term_draws.get("seen")
    return dropped if seen is None else with_drawn(dropped, seen=torch.zeros_like(seen))


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("objective", ["ddpm", "cbdm", "ddpm_tcfg", "cbdm_tcfg", "further"])
def test_ddp_finds_no_unused_parameter(backbone, objective):
    """It would refuse the second step. The last batch has every label dropped."""
    further = {name: value for term in FURTHER_TERMS.values() for name, value in term.items()}
    config = LossConfig(**{**OBJECTIVES, "further": further}[objective])
    loss, drawer = build_loss(config, PROCESSES["ddpm"], COUNTS, 5, batch_size=6)
    net = build_net(
        NetworkSpec(
            model=backbone_config(backbone, **SMALL[backbone]),
            channels=1,
            image_size=8,
            num_classes=K,
            augment=True,
            omega_max=1.0 if config.tcfg else 0.0,
        )
    )
    if config.coral:
        net.add_projection(8)
    net = net.to(memory_format=torch.channels_last)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        for step in range(4):
            x0, y = torch.randn(6, 1, 8, 8), torch.arange(6) % K
            draws = drawer(torch.arange(6 * step, 6 * step + 6), (1, 8, 8), CPU)
            draws = all_dropped(draws) if step == 3 else draws
            net.zero_grad()
            loss(wrapped, x0, y, draws)["total"].mean().backward()
            assert [name for name, p in net.named_parameters() if p.grad is None] == []
    finally:
        dist.destroy_process_group()
