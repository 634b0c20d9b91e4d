"""The train loop on a GPU: no waits, a recorded step, the bits of a resumed run."""

import copy
from dataclasses import replace

import pytest
import torch
from gpu_tools import DEVICE, ON_GPU, needs_cuda, of_a_gpu
from torch import nn
from training_tools import (
    ALL_FURTHER_TERMS,
    BATCH,
    CONFIG,
    DISTILLED,
    SEED,
    K,
    frozen,
    make_batch,
    make_callbacks,
    make_inputs,
)

from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.devices import make_deterministic
from cbdm_scale.losses.coral import PROJECTION_WIDTH
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training import loop
from cbdm_scale.training.checkpoint import Progress, TrainState
from cbdm_scale.training.distributed import World
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.gradients import DeviceMemoryError
from cbdm_scale.training.graph import WARM_UP, GraphedStep
from cbdm_scale.training.loop import train
from cbdm_scale.training.power_ema import pack, start_averages

pytestmark = of_a_gpu

STEPS = WARM_UP + (5 if ON_GPU else 3)
SIZE, CHANNELS = (16, 32) if ON_GPU else (8, 8)
OBJECTIVES = {
    "ddpm": LossConfig(name="ddpm"),
    "cbdm": LossConfig(),
    "cbdm, a quarter": LossConfig(reg_share=0.25),
    "tcfg": LossConfig(tcfg=True),
    "distilled": DISTILLED,
    "further": ALL_FURTHER_TERMS,
}


@pytest.fixture(autouse=True)
def exact():
    """Float32 is float32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Where there is no CUDA the recorded step is the step itself."""

    def graphed(step, config, world, log):
        recorded = GraphedStep(step, world.device, log, record=lambda call, stream: call)
        return recorded if config.graph == "on" else step

    if not ON_GPU:
        monkeypatch.setattr(loop, "graphed", graphed)


@pytest.fixture
def deterministic():
    make_deterministic(torch.device(DEVICE))
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.enable_cudnn_sdp(True)


def gpu_state(dropout=0.1, channels=CHANNELS, objective=None):
    torch.manual_seed(SEED)
    config = UNetConfig(
        channels=channels,
        multipliers=(1, 2),
        num_blocks=1,
        attention=(1,),
        dropout=dropout,
        groups=min(channels, 32),
    )
    spec = NetworkSpec(model=config, channels=3, image_size=SIZE, num_classes=K, omega_max=1.0)
    net = build(spec)
    if objective and objective.coral:
        net.add_projection(PROJECTION_WIDTH)
    net = net.to(DEVICE, memory_format=torch.channels_last)
    for parameter in net.parameters():  # a fresh one predicts nearly 0, whatever it is given
        if parameter.ndim > 1 and parameter.std() < 2e-3:
            nn.init.xavier_uniform_(parameter, 0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    state = TrainState(net, EMA(net, 4.0 * BATCH), optimizer, Progress(substitutions=[0] * K))
    state.posthoc = start_averages(net, wanted=True)
    return state


def gpu_batches(num_seen=0):
    """Bytes, of which some are still to be mirrored."""
    while True:
        ids = torch.arange(num_seen, num_seen + BATCH)
        bytes_of = torch.Generator().manual_seed(num_seen)
        x = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=bytes_of)
        yield replace(make_batch(ids), x=x.to(torch.uint8), mirrored=ids % 3 == 0)
        num_seen += BATCH


def run(state, objective, *, steps=STEPS, callbacks=None, **options):
    """Train until so many steps are done; the numbers of every report."""
    reports = []
    config = replace(
        CONFIG, total_images=steps * BATCH, lr=1e-3, warmup_images=4 * BATCH, **options
    )
    teacher = frozen(state.net) if objective.distils else None
    batches = gpu_batches(state.progress.num_seen)
    inputs = make_inputs(batches, objective=objective, teacher=teacher)
    inputs.draw.process.to(DEVICE)
    usual = make_callbacks(report=lambda state, numbers: reports.append(numbers))
    train(state, inputs, config, World(DEVICE), callbacks or usual)
    return reports


def everything(state):
    named = {**state.net.state_dict(), **pack(state.posthoc)}
    named |= {f"ema {name}": v for name, v in state.ema.net.state_dict().items()}
    for name, p in state.net.named_parameters():
        named |= {f"{kind} {name}": v for kind, v in state.optimizer.state[p].items()}
    return {name: value.detach().clone() for name, value in named.items()}


def test_images_have_the_bits_of_the_cpu():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_model_range(levels.to(DEVICE)).cpu(), to_model_range(levels))


def sync_debug(mode):
    if ON_GPU:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("graph", ["off", "on"])
@pytest.mark.parametrize(
    ("objective", "micro_batch"),
    [
        *(("ddpm", 0), ("cbdm", 0), ("tcfg", 0), ("distilled", 0), ("further", 0)),
        ("cbdm, a quarter", 4),
    ],
)
def test_nothing_waits_for_the_gpu_between_reports(objective, graph, micro_batch):
    state, asked = gpu_state(objective=OBJECTIVES[objective]), []

    def stop():
        """From when all is set up to before the last step, after which a norm is read."""
        asked.append(True)
        on = WARM_UP + 1 < len(asked) < STEPS
        sync_debug("error" if on else "default")
        return False

    options = {"graph": graph, "micro_batch": micro_batch, "log_every": 1000 * BATCH}
    try:
        run(state, OBJECTIVES[objective], callbacks=make_callbacks(stop=stop), **options)
    finally:
        sync_debug("default")
    assert len(asked) == STEPS == state.progress.steps


def apart(a, b):
    """|a - b| / |b| over all tensors of both together."""
    assert a.keys() == b.keys()
    norms = [((a[k] - b[k]).double().norm(), b[k].double().norm()) for k in a]
    return sum(d**2 for d, _ in norms).sqrt().item() / sum(n**2 for _, n in norms).sqrt().item()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2)])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_recorded_step_is_the_step(objective, precision, tolerance):
    """Losses, norms and weights, with dropout, a rising learning rate and all averages."""
    plain, recorded = (gpu_state(objective=objective) for _ in range(2))
    options = {"precision": precision, "log_every": BATCH}
    expected = run(plain, objective, graph="off", **options)
    found = run(recorded, objective, graph="on", **options)
    for a, b in zip(found, expected, strict=True):
        for name in ("loss/total", "grad_norm", "lr"):
            assert a[name] == pytest.approx(b[name], rel=10 * tolerance), name
    assert apart(everything(recorded), everything(plain)) < tolerance


def test_dropout_follows_the_step_in_a_recorded_step_too():
    """The same batch without noise of its own twice: only dropout tells the steps apart."""
    objective, losses = LossConfig(name="ddpm", p_uncond=0.0), {}
    for dropout in (0.0, 0.5):
        state = gpu_state(dropout=dropout)
        same = make_inputs(objective=objective)
        same.draw.process.to(DEVICE)
        (batch,) = (batch for _, batch in zip(range(1), gpu_batches(), strict=False))

        def again(batch=batch):
            while True:
                yield batch

        reports = []
        config = replace(
            CONFIG, total_images=STEPS * BATCH, lr=1e-30, graph="on", log_every=BATCH
        )
        report = make_callbacks(report=lambda s, n, r=reports: r.append(n["loss/total"]))
        train(state, replace(same, batches=again()), config, World(DEVICE), report)
        losses[dropout] = reports[WARM_UP:]
    assert len(set(losses[0.0])) == 1
    assert len(set(losses[0.5])) == len(losses[0.5])


@pytest.mark.parametrize("graph", ["off", "on"])
def test_a_resumed_run_has_the_bits_of_the_unbroken_one(deterministic, graph):
    objective, first = LossConfig(), WARM_UP + 2
    whole, broken = gpu_state(), gpu_state()
    run(whole, objective, graph=graph)
    run(broken, objective, steps=first, graph=graph)
    resumed = copy.deepcopy(broken)  # as from a checkpoint: no list, no graph is kept
    resumed.optimizer = torch.optim.Adam(resumed.net.parameters(), lr=1e-3, fused=True)
    pairs = zip(broken.net.parameters(), resumed.net.parameters(), strict=True)
    for old, new in pairs:
        moments = broken.optimizer.state[old]
        resumed.optimizer.state[new] = {k: v.clone() for k, v in moments.items()}
    run(resumed, objective, graph=graph)
    expected, found = everything(whole), everything(resumed)
    differing = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not differing


@needs_cuda
def test_a_gpu_that_is_too_small_is_told_the_micro_batch_to_try():
    free, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    state = gpu_state(channels=128)
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + 30 * 2**20) / total
    )
    try:
        with pytest.raises(DeviceMemoryError, match="8 images at once.*--train.micro-batch 4"):
            run(state, LossConfig(), precision="fp32")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
