"""One line per row of the paper's tables: its settings as `Config` values.

The paper counts steps; here everything counts images, so each row converts by its own batch.
Reported FIDs stand beside the rows. Interval evaluations use DDIM with 100 steps and 10,000
images, as the ablations do (Table 6: DDIM 6.27, ancestral 6.26 on CIFAR100-LT).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

from cbdm_scale.cluster import ClusterConfig
from cbdm_scale.config import Config
from cbdm_scale.data.augment import AugmentName
from cbdm_scale.data.loader import DataConfig
from cbdm_scale.data.manifest import canonical_name, read_manifest
from cbdm_scale.evaluation.score import EvalConfig
from cbdm_scale.losses import LossConfig
from cbdm_scale.models import BackboneName, ModelConfig, SongConfig, UNetConfig, backbone_config
from cbdm_scale.sampling.generate import SamplerConfig, usual_sampler
from cbdm_scale.training.loop import TrainConfig


def halflife(decay: float, batch_size: int) -> float:
    """Images after which an average with this decay a step has forgotten half."""
    return math.log(0.5) / math.log(decay) * batch_size


def paper(
    dataset: str,
    preset: str,
    loss: str,
    batch: int,
    omega: float,
    size: int = 32,
    tau: float = 1.0,
    augment: AugmentName = "none",
    power: float = 1.0,
    tcfg: bool = False,
    backbone: BackboneName = "unet",
) -> Config:
    """Section 4.1: the paper's U-Net, 300,000 steps (500,000 with ADA), warm-up over 5,000.

    Table 5 names the ``backbone`` only: it has its own authors' settings, the rest is as for
    the U-Net.

    Table 7 (``size`` 64 and 128) names omega and tau only: the rest is as for CIFAR, with
    attention at 16x16 as there. Its tau counts in units of this project's.
    """
    return Config(
        dataset=dataset,
        preset=preset,
        data=DataConfig(augment=augment, resample_power=power),
        backbone=backbone,
        model=(
            UNetConfig(attention=(int(math.log2(size // 16)),))
            if backbone == "unet"
            else backbone_config(backbone)
        ),
        loss=LossConfig(name="cbdm" if loss == "cbdm" else "ddpm", tau=tau, tcfg=tcfg),
        train=TrainConfig(
            total_images=(500_000 if augment == "ada" else 300_000) * batch,
            batch_size=batch,
            warmup_images=5_000 * batch,
            ema_halflife=halflife(0.9999, batch),
        ),
        eval=EvalConfig(omegas=(omega,), guidance_mode="tcfg" if tcfg else "cfg"),
    )


def edm(preset: str, loss: str, omega: float) -> Config:
    """A row of Table 5 on CIFAR100-LT: as EDM was trained on CIFAR-10 (its Table 7).

    The paper names no settings, and follows "the training configurations of the baseline
    models"; strengths are those of its DDPM rows. The network is DDPM++.
    """
    return Config(
        dataset="cifar100_lt",
        preset=preset,
        process="edm",
        data=DataConfig(augment="ada"),
        backbone="ddpmpp",
        model=SongConfig(dropout=0.13),
        loss=LossConfig(name="cbdm" if loss == "cbdm" else "ddpm"),
        train=TrainConfig(
            total_images=200_000_000 // 512 * 512,
            batch_size=512,
            lr=1e-3,
            warmup_images=10_000_000,
            ema_halflife=500_000,
            ema_ramp=0.05,
        ),
        sample=usual_sampler("edm"),
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
    """Scikit-learn's digits, 8 px: minutes on two cores. No flip: a mirrored 2 is no 2.

    CBDM's predictions for different labels differ less, so it wants a larger omega: up to 2.
    """
    tcfg, is_edm = preset.endswith("tcfg"), preset.endswith("edm")
    return Config(
        dataset="digits_lt",
        preset=preset,
        process="edm" if is_edm else "ddpm",
        data=DataConfig(flip=False),
        model=UNetConfig(
            channels=24, multipliers=(1, 2), num_blocks=1, attention=(1,), groups=8
        ),
        loss=LossConfig(
            name="cbdm" if preset.startswith("cbdm") else "ddpm",
            tcfg=tcfg,
            omega_max=2.0 if preset == "cbdm_tcfg" else 1.0,
        ),
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
        sample=usual_sampler("edm") if is_edm else SamplerConfig(num_steps=25),
        eval=EvalConfig(
            num_images=1_000,
            omegas=(1.0,),
            guidance_mode="tcfg" if tcfg else "cfg",
            chunk_size=250,
        ),
        cluster=ClusterConfig(workers=2),
    )


# fmt: off
PAPER = (
    #              dataset        preset   loss     batch omega px  tau      FID in the paper
    partial(paper, "cifar100_lt", "cbdm",  "cbdm",  48,  1.6),              # 6.26
    partial(paper, "cifar100_lt", "ddpm",  "ddpm",  64,  0.8),              # 7.38
    partial(paper, "cifar100_lt", "cbdm_ada", "cbdm", 48, 1.4, augment="ada"),  # 5.81
    partial(paper, "cifar100_lt", "ada",      "ddpm", 64, 0.8, augment="ada"),  # 6.16
    partial(paper, "cifar100_lt", "diffaug",  "ddpm", 64, 0.8, augment="diffaug"),  # 9.19
    partial(paper, "cifar100_lt", "rs",       "ddpm", 64, 0.8, power=0.0),  # 10.50
    partial(paper, "cifar100_lt", "sqrt_rs",  "ddpm", 64, 0.8, power=0.5),  # 9.72
    # Table 5: the Diffusion-ViT of its reference [51].
    partial(paper, "cifar100_lt", "vit",      "ddpm", 64, 0.8, backbone="vit"),  # 37.6
    partial(paper, "cifar100_lt", "cbdm_vit", "cbdm", 48, 1.6, backbone="vit"),  # 30.0
    partial(paper, "cifar100",    "cbdm",  "cbdm",  48,  0.8),              # 2.72
    partial(paper, "cifar100",    "ddpm",  "ddpm",  64,  0.8),              # 3.11
    # Figure 12, 10,000 images: CFG's best is 5.357, at omega 0.2.
    partial(paper, "cifar100",    "tcfg",  "ddpm",  64,  0.1, tcfg=True),   # 5.343
    partial(paper, "cifar10_lt",  "cbdm",  "cbdm",  48,  1.0),              # 5.46
    partial(paper, "cifar10_lt",  "ddpm",  "ddpm",  64,  0.8),              # 5.76
    partial(paper, "cifar10_lt",  "rs",       "ddpm", 64, 0.8, power=0.0),  # none
    partial(paper, "cifar10_lt",  "sqrt_rs",  "ddpm", 64, 0.8, power=0.5),  # none
    partial(paper, "cifar10",     "cbdm",  "cbdm",  48,  0.8),              # 3.03
    partial(paper, "cifar10",     "ddpm",  "ddpm",  64,  0.8),              # 3.16
    partial(paper, "celeba5",     "cbdm",  "cbdm",  48,  1.0,  64,   0.05), # 8.69
    partial(paper, "celeba5",     "ddpm",  "ddpm",  64,  0.6,  64),         # 10.68
    # These two cbdm rows the paper fine-tunes from its ddpm row.
    partial(paper, "cub200",      "cbdm",  "cbdm",  48,  0.4,  128,  0.1),  # 8.23
    partial(paper, "cub200",      "ddpm",  "ddpm",  64,  0.2,  128),        # 8.34
    partial(paper, "imagenet_lt", "cbdm",  "cbdm",  48,  1.6,  64,   0.01), # 16.3
    partial(paper, "imagenet_lt", "ddpm",  "ddpm",  64,  1.2,  64),         # 17.4
)
TABLE_5 = (
    #            preset      loss    omega    FID in the paper, CIFAR100-LT
    partial(edm, "edm",      "ddpm", 0.8),  # 8.64
    partial(edm, "cbdm_edm", "cbdm", 1.6),  # 7.97
)
# fmt: on
PRESETS: dict[tuple[str, str], Callable[[], Config]] = {
    **{(row.args[0], row.args[1]): row for row in PAPER},
    **{("cifar100_lt", row.args[0]): row for row in TABLE_5},
    ("cifar10_lt", "small"): partial(small, "cifar10_lt"),
    ("cifar100_lt", "small"): partial(small, "cifar100_lt"),
    ("digits_lt", "cbdm"): partial(digits, "cbdm"),
    ("digits_lt", "ddpm"): partial(digits, "ddpm"),
    ("digits_lt", "tcfg"): partial(digits, "tcfg"),
    ("digits_lt", "cbdm_tcfg"): partial(digits, "cbdm_tcfg"),
    ("digits_lt", "edm"): partial(digits, "edm"),
    ("digits_lt", "cbdm_edm"): partial(digits, "cbdm_edm"),
}


IMAGE_SIZES = {"digits_lt": 8, "celeba5": 64, "cub200": 128, "imagenet_lt": 64}
"""Side of the images in pixels, where it is not CIFAR's 32."""


def fitted(model: ModelConfig, size: int) -> ModelConfig:
    """A network meant for 32 pixels, for images of size x size.

    Of a U-Net the levels stay that halve the images evenly, down to 4 pixels. Attention is at
    the first level of at most 16 pixels (small: 8), or else at the last level if that has at
    most 32. A transformer stays as it is.
    """
    if not isinstance(model, UNetConfig | SongConfig):
        return model
    widest = 32 >> model.attention[0]  # the side at which the row for 32 px attends
    sides = [size >> level for level in range(len(model.multipliers)) if size % 2**level == 0]
    sides = sides[:1] + [side for side in sides[1:] if side >= 4]
    levels = [level for level, side in enumerate(sides) if side <= widest]
    if not levels and sides[-1] <= 32:
        levels = [len(sides) - 1]
    return replace(
        model, multipliers=model.multipliers[: len(sides)], attention=tuple(levels[:1])
    )


def on_backbone(config: Config, backbone: str, size: int) -> Config:
    """The same row on another network, which has its own defaults; "" is the row's."""
    if backbone in ("", config.backbone):
        return config
    model = fitted(backbone_config(backbone), size)
    return replace(config, backbone=cast(BackboneName, backbone), model=model)


def custom(dataset: str, row: str, size: int, backbone: str = "") -> Config:
    """A row for a data set that is in no table, of images of size x size pixels.

    cbdm and ddpm are the paper's rows for CIFAR, small the one for CPUs, their networks
    ``fitted`` to the images.
    """
    rows: dict[str, Callable[[], Config]] = {
        "cbdm": partial(paper, dataset, "cbdm", "cbdm", 48, 1.0),
        "ddpm": partial(paper, dataset, "ddpm", "ddpm", 64, 0.8),
        "small": partial(small, dataset),
    }
    if row not in rows:
        raise ValueError(
            f"preset ({row}) is no row of {dataset}. Choose from: {', '.join(rows)}."
        )
    config = rows[row]()
    config = replace(config, model=fitted(config.model, size))
    return on_backbone(config, backbone, size)


def preset(dataset: str, row: str = "cbdm", backbone: str = "") -> Config:
    """The settings of one row, on another network if one is named.

    ValueError names the data sets, or the data set's rows, or the networks.
    """
    name = canonical_name(dataset)
    rows = [r for d, r in PRESETS if d == name]
    if not rows:
        known = ", ".join(sorted({d for d, _ in PRESETS}))
        raise ValueError(f"dataset ({dataset}) is not known. Choose from: {known}.")
    if row not in rows:
        raise ValueError(f"preset ({row}) is no row of {name}. Choose from: {', '.join(rows)}.")
    return on_backbone(PRESETS[name, row](), backbone, IMAGE_SIZES.get(name, 32))


def any_row(dataset: str, row: str, root: str, backbone: str = "") -> Config:
    """A row of the tables, or for a data set of one's own below ``root`` one that fits it.

    Either on the network that ``backbone`` names, so that ``model`` has that one's options.
    """
    known = sorted({name for name, _ in PRESETS})
    if canonical_name(dataset) in known:
        return preset(dataset, row, backbone)
    try:
        manifest = read_manifest(root, dataset)
    except ValueError as error:
        raise ValueError(
            f"dataset ({dataset}) is none of {', '.join(known)}, and no data set of your own: "
            f"{error}"
        ) from None
    return custom(manifest.name, row, manifest.image_size, backbone)
