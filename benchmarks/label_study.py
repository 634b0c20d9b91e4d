"""How soon a network follows its label: the loss with a wrong label over the right one's.

    python -m benchmarks.label_study [--steps 4000] [--seeds 0 1]

Plain torch on scikit-learn's digits (1,797 images of 8 x 8), DDPM's loss, batches of 48, Adam
1e-3 after 100 steps, labels dropped with probability 0.1: the train command's loss without its
cluster. Every so many steps it measures the mean loss of fixed noise on fixed images with
their label and with the next one; a network that ignores it has a ratio of 1. Prints a
Markdown table, a line a network.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.timing import markdown
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.build import build_loss
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.build import build
from cbdm_scale.models.options import DiTConfig, UNetConfig, ViTConfig
from cbdm_scale.models.spec import NetworkSpec

BATCH, RATE, WARMUP, K = 48, 1e-3, 100, 10
LATE = 300
"""Steps of the process before this one are not measured: what is drawn is plain there."""
SIZE = {"patch": 2, "depth": 3, "width": 64, "heads": 4}


def strong_labels(net: nn.Module) -> nn.Module:
    """The label's rows as wide as N(0, 1), as the other backbones have them."""
    with torch.no_grad():
        net.get_parameter("label.weight")[:K].div_(0.02)
    return net


def make(config: UNetConfig | DiTConfig | ViTConfig) -> nn.Module:
    return build(NetworkSpec(model=config, channels=1, image_size=8, num_classes=K))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: make(
        UNetConfig(channels=24, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=8)
    ),
    "vit": lambda: make(ViTConfig(**SIZE)),
    "dit": lambda: make(DiTConfig(**SIZE)),
    "dit, label rows N(0, 1)": lambda: strong_labels(make(DiTConfig(**SIZE))),
}


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 1, 8, 8) in [-1, 1] and (1797,) labels."""
    found = load_digits()
    return torch.tensor(found.images).float()[:, None] / 8 - 1, torch.tensor(found.target)


@torch.no_grad()
def label_ratio(
    net: nn.Module, schedule: LinearSchedule, x0: Tensor, y: Tensor
) -> tuple[float, float]:
    """The mean loss with the right label, and the wrong one's over it."""
    generator = torch.Generator().manual_seed(1)
    t = torch.randint(LATE, schedule.num_steps, (len(y),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    x_t = schedule.noisy(x0, t, eps).x
    net.eval()
    right, wrong = ((net(x_t, t, label) - eps).square().mean() for label in (y, (y + 1) % K))
    net.train()
    return right.item(), (wrong / right).item()


def learn(name: str, seed: int, steps: int, at: Sequence[int]) -> list[tuple[float, float]]:
    """``label_ratio`` after each number of steps."""
    torch.manual_seed(seed)
    net, (x0, y) = NETWORKS[name](), digits()
    schedule = LinearSchedule(ScheduleConfig())
    loss, draw = build_loss(LossConfig(name="ddpm"), schedule, torch.bincount(y), seed, BATCH)
    adam = torch.optim.Adam(net.parameters(), lr=RATE)
    found = []
    for step in range(steps):
        images = torch.arange(step * BATCH, (step + 1) * BATCH)
        rows = torch.randint(len(y), (BATCH,))
        draws = draw(images, x0.shape[1:], torch.device("cpu"))
        adam.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARMUP)
        adam.zero_grad()
        loss(net, x0[rows], y[rows], draws)["total"].mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        if step + 1 in at:
            found.append(label_ratio(net, schedule, x0, y))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    measured = [n for n in (250, 500, 1_000, 1_500, 2_000, 4_000, 8_000) if n <= args.steps]
    rows = []
    for name in args.networks:
        for seed in args.seeds:
            found = learn(name, seed, args.steps, measured)
            cells = [f"{ratio:.3f} ({right:.4f})" for right, ratio in found]
            rows.append([f"{name}, seed {seed}", *cells])
            print(*rows[-1], flush=True)
    print(markdown(["wrong / right (right)", *(f"{n:,}" for n in measured)], rows))


if __name__ == "__main__":
    main()
