"""One line per row of the paper's tables: its settings as `Config` values.

The paper counts steps; here everything counts images, so each row converts by its own batch.
Reported FIDs stand beside the rows. Interval evaluations use DDIM with 100 steps and 10,000
images, as the ablations do (Table 6: DDIM 6.27, ancestral 6.26 on CIFAR100-LT).
"""

import math
from collections.abc import Callable

from cbdm_scale.cluster import ClusterConfig
from cbdm_scale.config import Config
from cbdm_scale.data.loader import DataConfig
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.evaluation.score import EvalConfig
from cbdm_scale.losses import LossConfig
from cbdm_scale.models import UNetConfig
from cbdm_scale.sampling.generate import SamplerConfig
from cbdm_scale.training.loop import TrainConfig


def halflife(decay: float, batch_size: int) -> float:
    """Images after which an average with this decay a step has forgotten half."""
    return math.log(0.5) / math.log(decay) * batch_size


def cifar(dataset: str, preset: str, loss: str, batch: int, omega: float) -> Config:
    """Section 4.1: the paper's U-Net (the default), 300,000 steps, warm-up over 5,000."""
    return Config(
        dataset=dataset,
        preset=preset,
        loss=LossConfig(name="cbdm" if loss == "cbdm" else "ddpm"),
        train=TrainConfig(
            total_images=300_000 * batch,
            batch_size=batch,
            warmup_images=5_000 * batch,
            ema_halflife=halflife(0.9999, batch),
        ),
        eval=EvalConfig(omegas=(omega,)),
    )


def small(dataset: str, loss: str = "cbdm") -> Config:
    """For a laptop's CPU: a U-Net of 0.6 M parameters at 32 px, an hour or two on two cores."""
    return Config(
        dataset=dataset,
        preset="small",
        model=UNetConfig(
            channels=24, multipliers=(1, 2, 2), num_blocks=1, attention=(2,), groups=8
        ),
        loss=LossConfig(name="cbdm" if loss == "cbdm" else "ddpm"),
        train=TrainConfig(
            total_images=480_000,
            batch_size=48,
            lr=5e-4,
            warmup_images=9_600,
            ema_halflife=halflife(0.999, 48),
            log_every=2_400,
            save_every=9_600,
            sample_every=48_000,
            eval_every=96_000,
        ),
        sample=SamplerConfig(num_steps=25),
        eval=EvalConfig(num_images=1_000, omegas=(1.0,)),
    )


def digits(preset: str) -> Config:
    """Scikit-learn's digits, 8 px: minutes on two cores. No flip: a mirrored 2 is no 2."""
    return Config(
        dataset="digits_lt",
        preset=preset,
        data=DataConfig(flip=False),
        model=UNetConfig(
            channels=24, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=8
        ),
        loss=LossConfig(name="ddpm" if preset == "ddpm" else "cbdm"),
        train=TrainConfig(
            total_images=72_000,
            batch_size=48,
            lr=1e-3,
            warmup_images=4_800,
            ema_halflife=halflife(0.998, 48),
            precision="fp32",
            log_every=2_400,
            save_every=12_000,
            sample_every=36_000,
            eval_every=0,
        ),
        sample=SamplerConfig(num_steps=25),
        eval=EvalConfig(num_images=1_000, omegas=(1.0,), chunk_size=250),
        cluster=ClusterConfig(workers=2),
    )


# fmt: off
PRESETS: dict[tuple[str, str], Callable[[], Config]] = {
    #                                      preset  loss    batch omega    FID in the paper
    ("cifar100_lt", "cbdm"): lambda: cifar("cifar100_lt", "cbdm", "cbdm", 48, 1.6),  # 6.26
    ("cifar100_lt", "ddpm"): lambda: cifar("cifar100_lt", "ddpm", "ddpm", 64, 0.8),  # 7.38
    ("cifar100", "cbdm"):    lambda: cifar("cifar100", "cbdm", "cbdm", 48, 0.8),     # 2.72
    ("cifar100", "ddpm"):    lambda: cifar("cifar100", "ddpm", "ddpm", 64, 0.8),     # 3.11
    ("cifar10_lt", "cbdm"):  lambda: cifar("cifar10_lt", "cbdm", "cbdm", 48, 1.0),   # 5.46
    ("cifar10_lt", "ddpm"):  lambda: cifar("cifar10_lt", "ddpm", "ddpm", 64, 0.8),   # 5.76
    ("cifar10", "cbdm"):     lambda: cifar("cifar10", "cbdm", "cbdm", 48, 0.8),      # 3.03
    ("cifar10", "ddpm"):     lambda: cifar("cifar10", "ddpm", "ddpm", 64, 0.8),      # 3.16
    ("cifar10_lt", "small"): lambda: small("cifar10_lt"),
    ("cifar100_lt", "small"): lambda: small("cifar100_lt"),
    ("digits_lt", "cbdm"):   lambda: digits("cbdm"),
    ("digits_lt", "ddpm"):   lambda: digits("ddpm"),
}
# fmt: on

LATER = {
    "imagenet_lt": "python -m data_prep imagenet-lt --source ILSVRC --out ROOT",
    "cub200": "python -m data_prep cub200 --source CUB_200_2011 --out ROOT",
    "celeba5": "python -m data_prep celeba5 --source CELEBA --out ROOT",
}
"""Data sets of the paper whose readers are not written yet, and the commands that will be."""


def preset(dataset: str, row: str = "cbdm") -> Config:
    """The settings of one row. ValueError names the data sets, or the data set's rows."""
    name = canonical_name(dataset)
    if name in LATER:
        raise ValueError(
            f"dataset ({name}) has no preset yet: its shards will be made by `{LATER[name]}`, "
            "which this version lacks. Try --dataset cifar100_lt."
        )
    rows = [r for d, r in PRESETS if d == name]
    if not rows:
        known = ", ".join(sorted({d for d, _ in PRESETS}))
        raise ValueError(f"dataset ({dataset}) is not known. Choose from: {known}.")
    if row not in rows:
        raise ValueError(f"preset ({row}) is no row of {name}. Choose from: {', '.join(rows)}.")
    return PRESETS[name, row]()
