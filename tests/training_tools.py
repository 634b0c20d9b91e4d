"""A network of two layers, batches without files, and callbacks that do nothing."""

import copy
import itertools
from dataclasses import replace

import torch
from torch import nn

from cbdm_scale.data.loader import Batch
from cbdm_scale.data.plan import slots
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.training.checkpoint import Progress, TrainState
from cbdm_scale.training.device_transfer import Transfer
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.loop import Callbacks, TrainInputs
from cbdm_scale.training.options import TrainConfig

K, BATCH, SEED = 3, 8, 5

ALL_FURTHER_TERMS = LossConfig(
    name="ddpm",
    delta_fm=0.05,
    t2h=True,
    two_mask=1.0,
    ccua_align=1.0,
    ccua_contrast=1.0,
    coral=0.5,
    dispersive=0.25,
)
"""All terms of others; CORAL wants a network with a projection."""
DISTILLED = LossConfig(name="ddpm", tcfg=True, tcfg_target="teacher", omega_max=2.0)
"""Of a second stage."""
CONFIG = TrainConfig(
    total_images=10 * BATCH,
    batch_size=BATCH,
    lr=1e-2,
    warmup_images=2 * BATCH,
    ema_halflife=4 * BATCH,
    precision="fp32",
    log_every=BATCH,
    save_every=1000 * BATCH,
    sample_every=0,
    eval_every=0,
)


class TinyNet(nn.Module):
    def __init__(self, width=4, projected=False):
        super().__init__()
        self.projection = nn.Linear(width, 5) if projected else None
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.label = nn.Embedding(K + 1, width)
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x, level, y, omega=None, augment=None, features=False):
        h = (self.first(x) + self.label(y)[:, :, None, None]).tanh()
        out = self.last(h)
        if not features:
            return out
        middle = h.flatten(2)
        if self.projection is None:
            return out, middle
        return out, middle, self.projection(middle.mean(2))


def fresh_state(width=4, objective=None):
    """``objective``: it may want a network with a projection."""
    torch.manual_seed(0)
    net = TinyNet(width, bool(objective and objective.coral)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=CONFIG.lr, fused=True)
    return TrainState(
        net, EMA(net, CONFIG.ema_halflife), optimizer, Progress(substitutions=[0] * K)
    )


def make_batch(sample_ids, substitutions=()):
    x0 = rng.normal(SEED, "pixels", sample_ids, 64).view(-1, 1, 8, 8).clamp(-1, 1)
    keys = tuple(f"key-{image}" for image in sample_ids.tolist())
    return Batch(x0, sample_ids % K, sample_ids, keys, tuple(substitutions))


def on_device(batch, draw, *, micro_batch=0, channels_last=True):
    """The micro-batches of a batch, as the train loop makes them."""
    device = torch.device("cpu")
    transfer = Transfer(draw, device, micro_batch=micro_batch, channels_last=channels_last)
    return transfer.finish(transfer.begin(batch))


def make_batches(start=0, rank=0, size=1):
    for image in itertools.count(start, BATCH):
        yield make_batch(slots(image, BATCH, rank, size))


def frozen(net):
    """A copy of the network as the teacher of a second stage."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def make_inputs(
    batches=None,
    loss=None,
    objective=LossConfig(),  # noqa: B008
    teacher=None,
    **options,
):
    """``teacher``: of a second stage, which else has a fresh network."""
    counts = torch.tensor([5, 3, 2])
    schedule = LinearSchedule(ScheduleConfig())
    teacher = teacher or (frozen(fresh_state().net) if objective.distils else None)
    own, draw = build_loss(objective, schedule, counts, SEED, BATCH, teacher)
    inputs = TrainInputs(
        loss or own, draw, batches or make_batches(), SEED, lambda planned: 0.0
    )
    return replace(inputs, **options)


def make_callbacks(**options):
    nothing = {
        "report": lambda state, numbers: None,
        "sample": lambda state: None,
        "evaluate": lambda state: None,
        "save": lambda state: None,
        "keep_averages": lambda state: None,
        "stop": lambda: False,
        "save_now": lambda: False,
        "log": lambda text: None,
    }
    return Callbacks(**{**nothing, **options})


def tensors(state):
    """Every tensor of a state by name: weights, average, moments."""
    named = {f"model.{k}": v for k, v in state.net.state_dict().items()}
    named |= {f"ema.{k}": v for k, v in state.ema.net.state_dict().items()}
    for name, p in state.net.named_parameters():
        named |= {f"{kind}.{name}": v for kind, v in state.optimizer.state[p].items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
