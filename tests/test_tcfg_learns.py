"""What Equations 32 and 33 lead to, on data whose denoiser is exact.

One Gaussian a class on a line: what two predictions give is known without a network. Shapes:
N = batch, K = classes (label K means "none"), T = steps.
"""

import torch
from torch import nn

from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.embeddings import OmegaEmbedding
from cbdm_scale.sampling.guidance import guide, trained

K, T = 4, 1000
COUNTS = torch.tensor([60, 25, 10, 5])
CPU = torch.device("cpu")
SCHEDULE = LinearSchedule()
MEANS, SPREAD = torch.tensor([-0.8, -0.1, 0.3, 0.9]), 0.15


def exact(x, level, y):
    """E[eps given x_t and y], and for y = K given x_t alone: (N, 1, 1, 1)."""
    alpha_bar = SCHEDULE.alpha_bar[level].double()[:, None]
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar  # (N, 1), of x_t in each class
    off = x.double().flatten(1) - alpha_bar.sqrt() * MEANS.double()  # (N, K)
    e = (1 - alpha_bar).sqrt() * off / variance
    likely = COUNTS.double().log() - off.square() / (2 * variance)
    mixed = (likely.softmax(1) * e).sum(1)
    own = e.gather(1, y.clamp_max(K - 1)[:, None])[:, 0]
    return torch.where(y == K, mixed, own).float().view_as(x)


class Learner(nn.Module):
    """The exact denoiser, and beside it a small network that hears omega."""

    def __init__(self):
        super().__init__()
        self.omega = OmegaEmbedding(16, 64)
        self.label = nn.Embedding(K, 64)
        self.trunk, self.last = nn.Linear(6, 64), nn.Linear(64, 1)
        self.middle = nn.Linear(64, 64)

    def forward(self, x, level, y, omega=None, augment=None):
        e = exact(x, level, y)
        if omega is None:
            return e
        s = level.float()[:, None] / T
        z = x.flatten(1)
        waves = torch.cat([z, z.sin(), s, (6 * s).sin(), z * s, (3 * z).cos()], 1)
        hidden = self.trunk(waves) + self.label(y.clamp_max(K - 1))

        def answer(emb):
            return self.last(nn.functional.silu(self.middle(nn.functional.silu(hidden + emb))))

        return e + (answer(self.omega(omega)) - answer(0.0)).view_as(x)


def test_one_call_learns_what_two_calls_give():
    """Of ||two calls - unguided||^2 on fresh images, less than a tenth is left."""
    torch.manual_seed(0)
    net = Learner()
    n, steps = 256, 600
    loss, drawer = build_loss(LossConfig(name="ddpm", tcfg=True), SCHEDULE, COUNTS, 5, n)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)

    def images(number):
        y = torch.multinomial(COUNTS.double(), n, replacement=True)
        x0 = (MEANS[y] + SPREAD * torch.randn(n)).view(n, 1, 1, 1)
        return x0, y, drawer(torch.arange(n * number, n * (number + 1)), (1, 1, 1), CPU)

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss(net, *images(step))["total"].mean().backward()
        optimizer.step()

    left, whole = 0.0, 0.0
    for omega in (0.0, 0.3, 0.7, 1.0):
        x0, y, draws = images(steps)
        x_t = SCHEDULE.add_noise(x0, draws.t, draws.eps)
        with torch.no_grad():
            plain = net(x_t, draws.t, y)
            one = trained(net, omega, K)(x_t, draws.t, y)
            two = guide(net, omega, K)(x_t, draws.t, y)
        if not omega:
            assert torch.equal(one, two) and torch.equal(one, plain)
        left += (one - two).square().mean().item()
        whole += (two - plain).square().mean().item()
    assert left < 0.1 * whole, (left, whole)
