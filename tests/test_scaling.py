"""The benchmark of scaling: what it counts is exact, what it computes has the right limits."""

import math
import socket
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.context import Context, fresh
from benchmarks.gpu.host import SPEC
from benchmarks.gpu.loop import EAGER, make_batch, run_loop
from benchmarks.scaling import model, reporters, variants
from benchmarks.scaling.model import (
    Device,
    Network,
    Reduction,
    Work,
    fit_link,
    hidden_share,
    ring_bytes,
)
from benchmarks.scaling.predict import Kernels, count
from benchmarks.scaling.ranks import Job, run, sent_bytes
from cbdm_scale.config.presets import PRESETS, PUBLISHED
from cbdm_scale.losses.options import LossConfig

WORK = Work(flops_per_image=7e10, kernels=800, gradient_bytes=1.4e8, buckets=7, hidden=0.9)
DEVICE = Device(flops=1e14, launch=5e-6)
NETWORK = Network(inside=2e11, between=1e10, latency=1e-5)
gpu_counts = st.sampled_from([2, 4, 8, 16, 64, 512])


# ----------------------------------------------------------------------------
# Counting.


def test_bytes_are_counted_at_this_process_s_sockets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            before = sent_bytes()
            client.sendall(b"x" * 100_000)
            accepted.sendall(b"y" * 2_345)
            assert sent_bytes() - before == 102_345


def test_a_ring_sends_nothing_alone_and_at_most_all_twice():
    assert ring_bytes(100, 1) == 0
    assert ring_bytes(100, 2) == 100
    assert ring_bytes(100, 4) == 150
    assert ring_bytes(100, 10**9) == pytest.approx(200)


@pytest.mark.parametrize("cap", [1, 25])
def test_buckets_are_those_of_ddp(cap):
    net = variants.new_net(32)
    ready = list(reversed(list(net.parameters())))
    limits = [min(variants.MIB, cap * variants.MIB), cap * variants.MIB]
    groups, _ = dist._compute_bucket_assignment_by_size(ready, limits, [False] * len(ready))
    theirs = [sum(4 * ready[i].numel() for i in group) for group in groups]
    assert variants.buckets_of(net, cap) == theirs


def test_counted_work_is_that_of_the_network():
    work, plain = (count(PRESETS["digits_lt", row]()) for row in ("cbdm", "ddpm"))
    assert work.gradient_bytes == 4 * 396_697
    assert work.flops_per_image == pytest.approx(2 * plain.flops_per_image)
    assert work.kernels == plain.kernels


def test_counted_operations_are_about_those_of_a_step_of_the_loop():
    """The paper's U-Net with 4 channels, in bf16: by one step more of the train loop."""
    small = replace(PRESETS["cifar100_lt", "cbdm"](), model=SPEC.model)

    def operations(steps):
        context, batch = Context(torch.device("cpu"), True, None), make_batch(2, 8)
        with Kernels() as found:
            run_loop(context, net, LossConfig(), 2, steps, warm_up=0, batch=batch, **EAGER)
        return found.count

    net = fresh(SPEC)
    one, two = operations(1), operations(2)
    assert two - one == pytest.approx(count(small).kernels, rel=0.15)


def test_every_data_set_of_the_presets_can_be_counted():
    assert PUBLISHED.keys() == {dataset for dataset, _ in PRESETS}


# ----------------------------------------------------------------------------
# The model's limits.


@pytest.mark.parametrize("grown", [True, False])
def test_one_gpu_is_fully_efficient(grown):
    assert model.efficiency(WORK, DEVICE, NETWORK, 1, 48, grown=grown) == 1


@given(gpus=gpu_counts)
def test_on_an_infinitely_quick_network_a_grown_batch_loses_nothing(gpus):
    free = Network(inside=math.inf, between=math.inf)
    assert model.efficiency(WORK, DEVICE, free, gpus, 48, grown=True) == 1


@given(gpus=gpu_counts)
def test_on_an_infinitely_quick_network_a_shared_batch_loses_only_to_launches(gpus):
    free, no_launch = Network(inside=math.inf, between=math.inf), Device(flops=1e14)
    assert model.efficiency(WORK, no_launch, free, gpus, 48, grown=False) == pytest.approx(1)
    bound = 48 * WORK.flops_per_image / DEVICE.flops / (WORK.kernels * DEVICE.launch)
    assert model.speedup(WORK, DEVICE, free, gpus, 48, grown=False) <= bound + 1e-9


@given(gpus=gpu_counts, grown=st.booleans(), factor=st.floats(1.01, 100))
def test_more_bandwidth_or_less_latency_is_never_slower(gpus, grown, factor):
    def efficiency(network):
        return model.efficiency(WORK, DEVICE, network, gpus, 64, grown=grown)

    base = efficiency(NETWORK)
    assert efficiency(replace(NETWORK, between=factor * NETWORK.between)) >= base
    assert efficiency(replace(NETWORK, inside=factor * NETWORK.inside)) >= base
    assert efficiency(replace(NETWORK, latency=NETWORK.latency / factor)) >= base
    assert 0 < base <= 1


def test_more_bandwidth_between_nodes_helps_where_it_binds():
    slow = replace(NETWORK, between=1e9)
    on = {"gpus": 16, "batch": 64, "grown": True}
    slower = model.efficiency(WORK, DEVICE, slow, **on)
    assert slower < model.efficiency(WORK, DEVICE, NETWORK, **on) < 1


def test_a_step_is_never_shorter_than_compute_nor_longer_than_both_in_turn():
    for hidden in (0.0, 0.5, 1.0):
        for reduce in (0.0, 0.1, 1.0, 10.0):
            step = model.with_overlap(1.0, reduce, hidden)
            assert 1.0 <= step <= 1.0 + reduce
    assert model.with_overlap(1.0, 0.5, 1.0) == 1.0
    assert model.with_overlap(1.0, 10.0, 1.0) == pytest.approx(11 - model.BACKWARD)


def test_only_divisors_of_the_batch_can_share_it():
    assert [n for n in (8, 16, 32, 64) if model.divides(48, n)] == [8, 16]


def test_the_learning_rate_grows_by_the_named_rule():
    assert model.grown_lr(2e-4, 1, "sqrt") == model.grown_lr(2e-4, 1, "linear") == 2e-4
    assert model.grown_lr(2e-4, 16, "sqrt") == pytest.approx(8e-4)
    assert model.grown_lr(2e-4, 16, "linear") == pytest.approx(32e-4)


# ----------------------------------------------------------------------------
# The fit.


def reduction(ranks, num_bytes, buckets, bandwidth, latency):
    seconds = ring_bytes(num_bytes, ranks) / bandwidth + 2 * (ranks - 1) * buckets * latency
    return Reduction(ranks, num_bytes, buckets, seconds)


def test_the_fit_finds_the_link_that_made_the_points():
    points = [
        reduction(r, 3.6e7, b, bandwidth=1e8, latency=2e-3) for r in (2, 3) for b in (3, 30)
    ]
    bandwidth, latency = fit_link(points)
    assert bandwidth == pytest.approx(1e8) and latency == pytest.approx(2e-3)


def test_a_fitted_constant_is_never_below_zero():
    points = [Reduction(2, 1e6, 1, 1.0), Reduction(2, 1e6, 100, 0.5)]
    bandwidth, latency = fit_link(points)
    assert bandwidth > 0 and latency >= 0


@pytest.mark.parametrize("hidden", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("reduce", [0.2, 3.0])
def test_the_model_gives_back_the_step_that_its_share_was_read_from(hidden, reduce):
    together = 1.5 + reduce - hidden * min(reduce, model.BACKWARD * 1.5)
    assert hidden_share(1.5, reduce, together) == pytest.approx(hidden)


# ----------------------------------------------------------------------------
# The measurement itself, once through.


def test_only_rank_0_talks_to_storage_tracker_and_console(digits_root, tmp_path):
    """On a start and on a restart, of a thousand workers as of four."""
    for workers, ranks in ((4, range(4)), (1000, (0, 1, 999))):
        for steps in (reporters.STEPS, reporters.STEPS + reporters.SAVE_STEPS):
            found = reporters.simulate(
                digits_root, str(tmp_path / f"runs-{workers}"), workers, ranks, steps
            )
            for rank in ranks:
                talk = found[rank] - Counter({"Ray reports": found[rank]["Ray reports"]})
                assert bool(talk) == (rank == 0), (workers, rank, talk)
            assert found[0]["tracker"] > 0 and found[0]["writes"] > 0


def test_what_rank_0_says_does_not_grow_with_the_workers(digits_root, tmp_path):
    counts = [
        reporters.simulate(digits_root, str(tmp_path / f"of-{n}"), n, [0], reporters.STEPS)[0]
        for n in (2, 1000)
    ]
    for kind in ("reads", "writes", "tracker", "Ray reports"):
        assert counts[0][kind] == counts[1][kind], kind


def test_a_thousand_ranks_report_through_ray_s_actor():
    pytest.importorskip("ray.train.v2")
    assert reporters.report_seconds(1000, times=1) > 0


@pytest.mark.slow
def test_two_ranks_send_the_ring_bound_and_bf16_half_of_it():
    names = [variants.LOCAL, variants.PRODUCT, variants.BF16, variants.SMALL]
    measured = run(Job(2, names, repetitions=2, channels=32, images=1))
    bound = ring_bytes(measured.gradient_bytes, 2)
    assert measured.sent[variants.LOCAL] == [0, 0]
    for name, size in ((variants.PRODUCT, 1), (variants.SMALL, 1), (variants.BF16, 0.5)):
        for sent in measured.sent[name]:
            assert sent == pytest.approx(size * bound, rel=2e-3) and sent >= size * bound
    assert all(len(wall) == 2 for wall in measured.wall_s.values())
    assert torch.tensor(list(measured.wall_s.values())).min() > 0
