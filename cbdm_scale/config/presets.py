"""One line per row of the paper's tables (1, 2, 5 and 7, and Figure 12), its numbers beside it.

paper.py says what the rows of a table share. A line's last figures are what the paper
reports of it: FID, F_8, recall, IS and, where the table has it, F_1/8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from cbdm_scale.config.paper import digits, edm, paper, small
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import canonical_name, read_manifest
from cbdm_scale.models.options import (
    BackboneName,
    ModelConfig,
    SongConfig,
    UNetConfig,
    backbone_config,
)

row, tuned = partial(partial, paper), partial(partial, paper, tuned=True)
tuned_bal = partial(tuned, label_power=0.0)
# fmt: off
PAPER = (
    # Table 1: data set, preset, loss, batch, omega; FID, F_8, recall, IS, F_1/8.
    row("cifar100_lt", "cbdm", "cbdm", 48, 1.6),               # 6.26 0.91 0.57 13.24 0.89
    row("cifar100_lt", "ddpm", "ddpm", 64, 0.8),               # 7.38 0.85 0.52 13.11 0.88
    row("cifar100_lt", "cbdm_ada", "cbdm", 48, 1.4, augment="ada"),  # 5.81 0.91 0.57 13.34 0.90
    row("cifar100_lt", "ada", "ddpm", 64, 0.8, augment="ada"),  # 6.16 0.91 0.57 12.71 0.90
    row("cifar100_lt", "diffaug", "ddpm", 64, 0.8,
        augment="diffaug"),                                    # 9.19 0.88 0.47 11.56 0.86
    row("cifar100_lt", "rs", "ddpm", 64, 0.8, power=0.0),      # 10.50 0.65 0.49 12.60 0.83
    row("cifar100_lt", "sqrt_rs", "ddpm", 64, 0.8, power=0.5),  # 9.72 0.66 0.47 13.47 0.83
    row("cifar100", "cbdm", "cbdm", 48, 0.8),                  # 2.72 0.97 0.67 14.03 0.96
    row("cifar100", "ddpm", "ddpm", 64, 0.8),                  # 3.11 0.97 0.65 13.65 0.96
    row("cifar10_lt", "cbdm", "cbdm", 48, 1.0),                # 5.46 0.97 0.59 9.28 0.95
    row("cifar10_lt", "ddpm", "ddpm", 64, 0.8),                # 5.76 0.97 0.57 9.17 0.95
    row("cifar10_lt", "rs", "ddpm", 64, 0.8, power=0.0),       # in no table
    row("cifar10_lt", "sqrt_rs", "ddpm", 64, 0.8, power=0.5),  # in no table
    row("cifar10", "cbdm", "cbdm", 48, 0.8),                   # 3.03 0.99 0.65 9.63 0.98
    row("cifar10", "ddpm", "ddpm", 64, 0.8),                   # 3.16 0.99 0.64 9.80 0.98
    # Table 2, from scratch; with y' as in the training set it is the row cbdm.
    row("cifar100_lt", "cbdm_bal", "cbdm", 48, 1.6, label_power=0.0),  # 6.10 0.94 0.64 12.29
    row("cifar100_lt", "cbdm_sqr", "cbdm", 48, 1.6, label_power=0.5),  # 6.00 0.93 0.59 13.00
    # Table 5: the Diffusion-ViT of its reference [51].
    row("cifar100_lt", "vit", "ddpm", 64, 0.8, backbone="vit"),  # 37.6 0.76 0.45 7.66 0.62
    row("cifar100_lt", "cbdm_vit", "cbdm", 48, 1.6, backbone="vit"),  # 30.0 0.81 0.51 8.00 0.65
    # Table 7: .., omega, pixels, tau; no F_1/8.
    row("celeba5", "cbdm", "cbdm", 48, 1.0, 64, 0.05),         # 8.69 0.94 0.57 2.26
    row("celeba5", "ddpm", "ddpm", 64, 0.6, 64),               # 10.68 0.92 0.51 2.22
    row("cub200", "cbdm", "cbdm", 48, 0.4, 128, 0.1),          # the paper: tuned_bal
    row("cub200", "ddpm", "ddpm", 64, 0.2, 128),               # 8.34 0.91 0.70 5.34
    row("imagenet_lt", "cbdm", "cbdm", 48, 1.6, 64, 0.01),     # the paper: tuned_bal
    row("imagenet_lt", "ddpm", "ddpm", 64, 1.2, 64),           # 17.4 0.93 0.33 25.4
    # Figure 12, FID of 10,000 images, each at its best of six strengths.
    row("cifar100", "cfg", "ddpm", 64, 0.2),                   # 5.357
    row("cifar100", "tcfg", "ddpm", 64, 0.1, tcfg=True),       # 5.343
)
TUNED = (
    # Table 2, fine-tuning of the data set's row ddpm; and for CIFAR10-LT, of CIFAR-100's.
    tuned("cifar100_lt", "tuned_train", "cbdm", 48, 1.6),      # 6.20 0.88 0.54 13.36
    tuned_bal("cifar100_lt", "tuned_bal", "cbdm", 48, 1.6),    # 5.85 0.92 0.60 13.29
    tuned("cifar10_lt", "tuned_ddpm", "ddpm", 64, 0.8),        # 5.39 0.66 0.58 9.43
    tuned("cifar10_lt", "tuned_train", "cbdm", 48, 1.0),       # 5.05 0.67 0.60 9.48
    tuned_bal("cifar10_lt", "tuned_bal", "cbdm", 48, 1.0),     # 5.90 0.66 0.60 9.49
    # Table 7; it does not say how y' is drawn: as Table 2 found best on the same data.
    tuned_bal("cub200", "tuned_bal", "cbdm", 48, 0.4, 128, 0.1),      # 8.23 0.92 0.70 5.36
    tuned_bal("imagenet_lt", "tuned_bal", "cbdm", 48, 1.6, 64, 0.01),  # 16.3 0.93 0.26 40.3
)
TABLE_5 = (
    # CIFAR100-LT: preset, loss, omega.
    partial(edm, "edm", "ddpm", 0.8),                          # 8.64 0.82 0.48 12.16 0.86
    partial(edm, "cbdm_edm", "cbdm", 1.6),                     # 7.97 0.88 0.52 12.01 0.86
)
# fmt: on
ORIGINS = {
    (one.args[0], one.args[1]): "cifar100" if one.args[0] == "cifar10_lt" else one.args[0]
    for one in TUNED
}
"""(data set, row) that fine-tunes -> the data set whose row ddpm it goes on from."""
LABEL_SETS = {*ORIGINS, ("cifar100_lt", "cbdm_bal"), ("cifar100_lt", "cbdm_sqr")}
"""Rows that say how y' is drawn, also for fine-tuning, which else has defaults of its own."""


def _small(dataset: str) -> Config:
    """The row for CPUs, its network fitted to the images of a data set of the tables."""
    row, about = small(dataset), PUBLISHED[dataset]
    return _of_size(replace(row, model=fitted(row.model, about.image_size)), about.train_images)


def _of_size(config: Config, train_images: int) -> Config:
    """Without recall and copies on the way where looking for them would take long."""
    if train_images <= LOOKED_AT:
        return config
    return replace(config, eval=replace(config.eval, recall_images=0))


LOOKED_AT = 20_000
"""Training images up to which the row for CPUs looks for copies: 5 s an evaluation, a few
percent of it; it grows with their square."""
DIGITS = "cbdm", "ddpm", "tcfg", "cbdm_tcfg", "edm", "cbdm_edm"

PRESETS: dict[tuple[str, str], Callable[[], Config]] = {
    **{(one.args[0], one.args[1]): one for one in (*PAPER, *TUNED)},
    **{("cifar100_lt", one.args[0]): one for one in TABLE_5},
    **{(one.args[0], "small"): partial(_small, one.args[0]) for one in PAPER},
    **{("digits_lt", name): partial(digits, name) for name in DIGITS},
}

FURTHER_TERM_ROWS: dict[str, dict[str, Any]] = {
    "delta_fm": {"delta_fm": 0.05},
    "t2h": {"t2h": True},
    "two_mask": {"two_mask": 1.0},
    "ccua": {"ccua_align": 1.0, "ccua_contrast": 1.0},
    "coral": {"coral": 0.5},
    "dispersive": {"dispersive": 0.25},
}
"""Rows in no table of the paper: ddpm with terms of others, as these have them for a U-Net."""

Rows = dict[str, Callable[[], Config]]


def with_further_rows(rows: Rows) -> Rows:
    """The rows of a data set, and the ``FURTHER_TERM_ROWS`` ones of its row ddpm."""

    def make(name: str) -> Config:
        plain = rows["ddpm"]()
        return replace(plain, preset=name, loss=replace(plain.loss, **FURTHER_TERM_ROWS[name]))

    return rows | {name: partial(make, name) for name in FURTHER_TERM_ROWS}


@dataclass(frozen=True)
class PublishedSet:
    """What is known of a published data set that is not there yet."""

    image_size: int
    """Height and width in pixels, as it is trained on."""
    num_classes: int
    train_images: int
    channels: int = 3

    def num_images(self, split: str) -> int:
        """Of the training images, as ``data.manifest.Manifest`` has it for every split."""
        assert split == "train"
        return self.train_images


PUBLISHED = {
    "cifar10": PublishedSet(32, 10, 50_000),
    "cifar10_lt": PublishedSet(32, 10, 12_406),
    "cifar100": PublishedSet(32, 100, 50_000),
    "cifar100_lt": PublishedSet(32, 100, 10_847),
    "celeba5": PublishedSet(64, 5, 6_651),
    "cub200": PublishedSet(128, 200, 5_994),
    "digits_lt": PublishedSet(8, 10, 428, channels=1),
    "imagenet_lt": PublishedSet(64, 1_000, 115_846),
}


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
    """The same preset on another network, with that one's defaults; "" is the preset's."""
    if backbone in ("", config.backbone):
        return config
    model = fitted(backbone_config(backbone), size)
    if config.loss.two_mask and not model.dropout:  # it compares masks
        model = replace(model, dropout=config.model.dropout)
    return replace(config, backbone=cast(BackboneName, backbone), model=model)


def preset_for(dataset: str, name: str, size: int, backbone: str = "") -> Config:
    """A preset for a data set that is in no table, of images of size x size pixels.

    cbdm and ddpm are the paper's for CIFAR, small the one for CPUs, the others ddpm with a
    further term, their networks ``fitted`` to the images.
    """
    presets = with_further_rows(
        {
            "cbdm": partial(paper, dataset, "cbdm", "cbdm", 48, 1.0),
            "ddpm": partial(paper, dataset, "ddpm", "ddpm", 64, 0.8),
            "small": partial(small, dataset),
        }
    )
    if name not in presets:
        raise ValueError(
            f"preset ({name}) is no preset of {dataset}. Choose from: {', '.join(presets)}."
        )
    config = presets[name]()
    config = replace(config, model=fitted(config.model, size))
    return on_backbone(config, backbone, size)


def preset(dataset: str, name: str = "cbdm", backbone: str = "") -> Config:
    """A published data set's preset, on another network if one is named.

    ValueError names the data sets, or the data set's presets, or the networks.
    """
    published = canonical_name(dataset)
    rows = {preset_name: make for (d, preset_name), make in PRESETS.items() if d == published}
    if not rows:
        known = ", ".join(sorted({d for d, _ in PRESETS}))
        raise ValueError(f"dataset ({dataset}) is not known. Choose from: {known}.")
    rows = with_further_rows(rows)
    if name not in rows:
        raise ValueError(
            f"preset ({name}) is no preset of {published}. Choose from: {', '.join(rows)}."
        )
    size = PUBLISHED[published].image_size
    return on_backbone(rows[name](), backbone, size)


def find_preset(dataset: str, name: str, root: str, backbone: str = "") -> Config:
    """A published data set's preset, or for one of one's own below ``root`` one that fits it.

    Either on the network that ``backbone`` names, so that ``model`` has that one's options.
    """
    known = sorted({published for published, _ in PRESETS})
    if canonical_name(dataset) in known:
        return preset(dataset, name, backbone)
    try:
        manifest = read_manifest(root, dataset)
    except ValueError as error:
        raise ValueError(
            f"dataset ({dataset}) is none of {', '.join(known)}, and no data set of your own: "
            f"{error}"
        ) from None
    found = preset_for(manifest.name, name, manifest.image_size, backbone)
    return _of_size(found, manifest.num_images("train"))
