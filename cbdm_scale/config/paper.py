"""The settings that rows of the paper's tables share, as `Config` values.

The paper counts steps; here everything counts images, so each row converts by its own batch.
Evaluations on the way use 10,000 images, as the ablations do, and 20 steps of DPM-Solver++: a
fifth of the ablations' 100 of DDIM (Table 6), at the same FID (docs/evaluation.md).
"""

import math

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.config.schema import Config
from cbdm_scale.data.options import AugmentName, DataConfig
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.options import BackboneName, SongConfig, UNetConfig, backbone_config
from cbdm_scale.sampling.options import SamplerConfig, usual_sampler
from cbdm_scale.training.options import TrainConfig


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
    label_power: float = 1.0,
    tuned: bool = False,
) -> Config:
    """Section 4.1: the paper's U-Net, 300,000 steps (500,000 with ADA), warm-up over 5,000.

    Table 5 names the ``backbone`` only: it has its own authors' settings, the rest is as for
    the U-Net.

    Table 7 (``size`` 64 and 128) names omega and tau only: the rest is as for CIFAR, with
    attention at 16x16 as there. Its tau counts in units of this project's.

    ``tuned`` goes on from a trained network, which --init-from names: of how long, Table 2 says
    nothing. 100,000 steps here, all else as from scratch.
    """
    steps = 100_000 if tuned else 500_000 if augment == "ada" else 300_000
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
        loss=LossConfig(
            name="cbdm" if loss == "cbdm" else "ddpm",
            tau=tau,
            tcfg=tcfg,
            label_power=label_power,
        ),
        train=TrainConfig(
            total_images=steps * batch,
            batch_size=batch,
            warmup_images=5_000 * batch,
            ema_halflife=halflife(0.9999, batch),
        ),
        sample=SamplerConfig(name="dpm", num_steps=20),
        eval=EvalConfig(guidance=(omega,), guidance_mode="tcfg" if tcfg else "cfg"),
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
        eval=EvalConfig(guidance=(omega,)),
    )


def small(dataset: str) -> Config:
    """For a laptop's CPU: a U-Net of 0.6 M parameters at 32 px.

    At 64 px two cores show it 20 images a second: two hours, half an hour of evaluations by
    --dry-run, and 8 minutes to the first grid, after a twentieth (docs/own-data.md).

    DDPM with SQRT-RS: of what was compared the best for the rare classes of a small set at no
    cost to the others (docs/results.md, "Photographs"). Rate, batch, average, no
    dropout and the strength are of the same runs.
    """
    return Config(
        dataset=dataset,
        preset="small",
        data=DataConfig(resample_power=0.5),
        model=UNetConfig(
            channels=24,
            multipliers=(1, 2, 2),
            num_blocks=1,
            attention=(2,),
            groups=8,
            dropout=0.0,
        ),
        loss=LossConfig(name="ddpm"),
        train=TrainConfig(
            total_images=153_600,
            batch_size=128,
            lr=2e-3,
            warmup_images=9_600,
            ema_halflife=halflife(0.999, 48),
            ema_ramp=0.05,
            precision="fp32",  # most CPUs compute bf16 in software, at half the speed or less
            log_every=2_400,
            save_every=9_600,
            sample_every=51_200,
            eval_every=51_200,
            eval_at=(7_680,),
        ),
        sample=SamplerConfig(name="dpm", num_steps=12),
        eval=EvalConfig(num_images=1_000, recall_images=1_000, guidance=(2.0,)),
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
            eval_every=24_000,
        ),
        sample=usual_sampler("edm") if is_edm else SamplerConfig(num_steps=25),
        eval=EvalConfig(
            num_images=1_000,
            recall_images=1_000,
            guidance=(1.0,),
            guidance_mode="tcfg" if tcfg else "cfg",
            chunk_size=250,
        ),
        cluster=ClusterConfig(workers=2),
    )
