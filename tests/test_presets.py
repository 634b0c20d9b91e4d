from dataclasses import replace
from functools import cache

import pytest
import torch
from network_tools import num_parameters

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.presets import (
    FURTHER_TERM_ROWS,
    LABEL_SETS,
    ORIGINS,
    PRESETS,
    preset,
    preset_for,
)
from cbdm_scale.losses.options import TERM_OPTIONS
from cbdm_scale.models.build import build
from cbdm_scale.models.options import BACKBONES
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.training.ema import EMA
from cbdm_scale.training.options import per_rank

CLASSES = {
    "digits_lt": 10,
    "cifar10_lt": 10,
    "cifar10": 10,
    "cifar100_lt": 100,
    "cifar100": 100,
    "celeba5": 5,
    "cub200": 200,
    "imagenet_lt": 1000,
}
SIZES = {"digits_lt": 8, "celeba5": 64, "cub200": 128, "imagenet_lt": 64}
PAPER = [
    row
    for row in PRESETS
    if row[0] != "digits_lt" and row[1] != "small" and not row[1].endswith("edm")
]
PLAIN = (
    *("ddpm", "ada", "diffaug", "rs", "sqrt_rs", "cfg", "tcfg", "vit", "edm"),
    *("tuned_ddpm", "small"),
)
"""Rows whose objective has no class-balancing term; of DDPM's process in batches of 64."""
TABLE_7 = {"celeba5": 0.05, "cub200": 0.1, "imagenet_lt": 0.01}
"""tau of the cbdm row."""


@cache
def build_once(spec):
    """Without memory behind its weights: fast, whatever its size."""
    with torch.device("meta"):
        return build(spec)


def network(config):
    return build_once(
        NetworkSpec(
            model=config.model,
            channels=1 if config.dataset == "digits_lt" else 3,
            image_size=SIZES.get(config.dataset, 32),
            num_classes=CLASSES[config.dataset],
            augment=config.data.conditions_on_augmentation,
            omega_max=config.loss.max_guidance,
        )
    )


@pytest.mark.parametrize("row", PRESETS)
def test_every_preset_builds(row):
    config = preset(*row)
    assert (config.dataset, config.preset) == row
    assert num_parameters(network(config)) > 10_000
    assert config.loss.name == ("ddpm" if row[1] in PLAIN else "cbdm")
    tcfg = row[1].endswith("tcfg")
    assert config.loss.tcfg == tcfg
    assert config.eval.guidance_mode == ("tcfg" if tcfg else "cfg")
    assert config.process == ("edm" if row[1].endswith("edm") else "ddpm")
    assert config.train.total_images % config.train.batch_size == 0
    for workers in (1, 2, 3, 4):
        if workers != 3 or config.train.batch_size == 48:
            per_rank(config.train.batch_size, workers)


def test_the_papers_network_has_35_93_million_parameters_with_100_classes():
    """The paper's code has 35,925,507, and no row for "none"."""
    net = network(preset("cifar100_lt"))
    assert round(num_parameters(net) / 1e6, 2) == 35.93
    one_row = 4 * preset("cifar100_lt").model.channels  # the width of the label's embedding
    assert num_parameters(net) == 35_925_507 + one_row


@pytest.mark.parametrize("row", PAPER)
def test_the_papers_settings(row):
    config = preset(*row)
    train, loss, batch = config.train, config.loss, 64 if row[1] in PLAIN else 48
    assert train.batch_size == batch
    steps = 500_000 if row[1].endswith("ada") else 100_000 if row in ORIGINS else 300_000
    assert train.total_images == steps * batch
    assert train.warmup_images == 5_000 * batch
    ema = EMA(torch.nn.Identity(), train.ema_halflife, train.ema_ramp)
    assert ema.decay(batch, batch) == pytest.approx(0.9999, abs=1e-12)
    assert (train.lr, train.max_grad_norm, train.ema_ramp) == (2e-4, 1.0, 0.0)
    tau = TABLE_7.get(row[0], 1) if loss.name == "cbdm" else 1
    assert (loss.tau, loss.gamma, loss.p_uncond) == (tau, 0.25, 0.1)
    assert loss.label_power == {"bal": 0, "sqr": 0.5}.get(row[1].rpartition("_")[2], 1)
    assert loss.reg_share == 1 and config.data.flip
    assert config.backbone == ("vit" if row[1].endswith("vit") else "unet")
    assert config.model.dropout == (0.1 if config.backbone == "unet" else 0)
    assert config.diffusion.num_steps == 1000
    assert config.data.resample_power == {"rs": 0, "sqrt_rs": 0.5}.get(row[1], 1)
    assert config.data.balanced_fraction == 0
    assert (config.sample.name, config.sample.calls) == ("dpm", 20)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dataset", CLASSES)
def test_a_row_on_another_backbone_is_the_row_otherwise(dataset, backbone):
    config, plain = preset(dataset, "cbdm", backbone), preset(dataset)
    assert num_parameters(network(config)) > 10_000
    assert replace(config, backbone="unet", model=plain.model) == plain


@pytest.mark.parametrize(
    "dataset, omega",
    [
        *(("cifar100_lt", 1.6), ("cifar100", 0.8), ("cifar10_lt", 1.0), ("cifar10", 0.8)),
        *(("celeba5", 1.0), ("cub200", 0.4), ("imagenet_lt", 1.6)),
    ],
)
def test_the_papers_guidance(dataset, omega):
    assert preset(dataset).eval.guidance == (omega,)


@pytest.mark.parametrize(
    ("row", "augment", "omega"),
    [("ada", "ada", 0.8), ("cbdm_ada", "ada", 1.4), ("diffaug", "diffaug", 0.8)],
)
def test_the_papers_augmentations(row, augment, omega):
    config = preset("cifar100_lt", row)
    assert (config.data.augment, config.data.augment_p) == (augment, 0.12)
    assert config.eval.guidance == (omega,)
    added = num_parameters(network(config)) - num_parameters(network(preset("cifar100_lt")))
    assert added == (9 * 512 if augment == "ada" else 0)


@pytest.mark.parametrize(("row", "like"), [("vit", "ddpm"), ("cbdm_vit", "cbdm")])
def test_table_5_changes_the_network_alone(row, like):
    config, plain = preset("cifar100_lt", row), preset("cifar100_lt", like)
    assert round(num_parameters(network(config)) / 1e6, 1) == 11.2
    assert replace(config, preset=like, backbone="unet", model=plain.model) == plain


def test_table_5_trains_edm_as_edm_was_trained():
    plain, cbdm = preset("cifar100_lt", "edm"), preset("cifar100_lt", "cbdm_edm")
    train = plain.train
    assert (train.batch_size, train.lr, train.warmup_images) == (512, 1e-3, 10_000_000)
    assert (train.ema_halflife, train.ema_ramp) == (500_000, 0.05)
    assert 200_000_000 - 512 < train.total_images <= 200_000_000
    assert (plain.data.augment, plain.data.augment_p, plain.model.dropout) == (
        "ada",
        0.12,
        0.13,
    )
    assert (plain.edm.p_mean, plain.edm.p_std, plain.edm.sigma_data) == (-1.2, 1.2, 0.5)
    assert plain.backbone == cbdm.backbone == "ddpmpp"
    rows_of_labels = 101 * 128
    assert round((num_parameters(network(plain)) - rows_of_labels) / 1e6, 1) == 55.7
    assert plain.sample == cbdm.sample and (plain.sample.name, plain.sample.calls) == (
        "heun",
        35,
    )
    assert cbdm.train == train and cbdm.model == plain.model and cbdm.edm == plain.edm
    assert (plain.loss.name, cbdm.loss.name, cbdm.loss.tau) == ("ddpm", "cbdm", 1.0)
    assert (plain.eval.guidance, cbdm.eval.guidance) == ((0.8,), (1.6,))


def test_figure_12_adds_an_embedding_of_the_strength_to_ddpm():
    config, plain = preset("cifar100", "tcfg"), preset("cifar100", "ddpm")
    assert config.eval.guidance == (0.1,)
    assert (config.loss.omega_max, config.loss.tcfg_gamma) == (1.0, 0.25)
    assert config.train == plain.train and config.model == plain.model
    added = num_parameters(network(config)) - num_parameters(network(plain))
    assert added == 128 * 512 + 512 * 512


def test_figure_12s_two_rows_differ_in_the_guidance_alone():
    cfg, tcfg = preset("cifar100", "cfg"), preset("cifar100", "tcfg")
    assert (cfg.eval.guidance, tcfg.eval.guidance) == ((0.2,), (0.1,))
    assert cfg.eval.num_images == 10_000
    assert replace(cfg, preset="ddpm").loss == preset("cifar100", "ddpm").loss
    assert replace(tcfg, preset="cfg", loss=cfg.loss, eval=cfg.eval) == cfg


TABLE_2 = {
    ("cifar100_lt", "tuned_train"): ("cifar100_lt", 1.6),
    ("cifar100_lt", "tuned_bal"): ("cifar100_lt", 1.6),
    ("cifar10_lt", "tuned_ddpm"): ("cifar100", 0.8),
    ("cifar10_lt", "tuned_train"): ("cifar100", 1.0),
    ("cifar10_lt", "tuned_bal"): ("cifar100", 1.0),
    ("cub200", "tuned_bal"): ("cub200", 0.4),
    ("imagenet_lt", "tuned_bal"): ("imagenet_lt", 1.6),
}
"""Row that fine-tunes: the data set of the network that it goes on from, omega."""


def test_the_rows_that_fine_tune_are_those_of_tables_2_and_7():
    assert {row: ORIGINS[row] for row in TABLE_2} == ORIGINS
    for row, (_, omega) in TABLE_2.items():
        scratch, config = preset(row[0]), preset(*row)
        assert config.eval.guidance == (omega,)
        assert (config.model, config.loss.tau) == (
            scratch.model,
            1 if "ddpm" in row[1] else scratch.loss.tau,
        )
    assert set(PRESETS) >= LABEL_SETS


@pytest.mark.parametrize("dataset, level", [("celeba5", 2), ("cub200", 3), ("cifar10", 1)])
def test_attention_is_at_16_pixels(dataset, level):
    model = preset(dataset).model
    assert model.attention == (level,)
    assert SIZES.get(dataset, 32) / 2**level == 16


def test_digits_are_not_mirrored():
    assert not preset("digits_lt").data.flip


def test_names_take_dashes_and_underscores():
    assert preset("cifar100-lt") == preset("cifar100_lt")


@pytest.mark.parametrize("row", ["cbdm", "ddpm", "small"])
@pytest.mark.parametrize("size", [1, 4, 8, 25, 28, 32, 48, 64, 100, 128, 256])
def test_a_data_set_of_ones_own_gets_a_network_that_fits_its_images(row, size):
    config = preset_for("mine", row, size)
    assert (config.dataset, config.preset) == ("mine", row)
    assert config.loss.name == ("cbdm" if row == "cbdm" else "ddpm")
    assert config.data.resample_power == (0.5 if row == "small" else 1)
    with torch.device("meta"):
        build(NetworkSpec(model=config.model, channels=3, image_size=size, num_classes=7))
    levels = len(config.model.multipliers)
    assert size >> (levels - 1) >= min(4, size)


def test_small_rows_look_at_recall_and_copies_where_there_are_few_training_images():
    looked = {
        row: make().eval.recall_images for row, make in PRESETS.items() if row[1] == "small"
    }
    assert looked["cifar10_lt", "small"] == 1_000 and looked["imagenet_lt", "small"] == 0
    assert preset("digits_lt", "ddpm").eval.recall_images == 1_000
    assert preset("cifar10_lt", "cbdm").eval.recall_images == 0, "50,000 are the command's"
    fewer = with_options(preset("digits_lt", "ddpm"), {"eval.num_images": 50})
    assert fewer.eval.num_stored == 50


def test_rows_of_ones_own_are_the_papers_at_32_pixels():
    """Above, attention stays at 16x16, as in the rows of Table 7."""
    assert preset_for("x", "cbdm", 32) == replace(preset("cifar10_lt"), dataset="x")
    assert preset_for("x", "ddpm", 32) == replace(preset("cifar10_lt", "ddpm"), dataset="x")
    assert preset_for("x", "small", 32) == replace(preset("cifar10_lt", "small"), dataset="x")
    assert preset_for("x", "cbdm", 64).model == preset("celeba5").model
    assert preset_for("x", "cbdm", 128).model == preset("cub200").model
    assert preset_for("x", "cbdm", 8).model.multipliers == (1, 2)
    assert preset_for("x", "cbdm", 256).model.attention == (3,)
    assert preset_for("x", "small", 64).model.attention == (2,)
    assert preset_for("x", "cbdm", 101).model.attention == ()


def test_a_row_that_no_data_set_has_names_those_that_are():
    with pytest.raises(ValueError, match=r"preset \(big\) is no preset of mine.*ddpm, small"):
        preset_for("mine", "big", 32)


def test_a_data_set_that_is_not_known_names_those_that_are():
    known = (
        "celeba5, cifar10, cifar100, cifar100_lt, cifar10_lt, cub200, digits_lt, imagenet_lt"
    )
    with pytest.raises(ValueError, match=rf"dataset \(mnist\).*{known}"):
        preset("mnist")


def test_a_row_that_is_not_there_names_those_that_are():
    with pytest.raises(
        ValueError, match=r"preset \(big\) is no preset of digits_lt.*cbdm, ddpm"
    ):
        preset("digits_lt", "big")


@pytest.mark.parametrize("row", FURTHER_TERM_ROWS)
def test_a_row_of_a_further_term_is_ddpm_with_it_on_any_data(row):
    for make in (
        lambda name: preset("digits_lt", name),
        lambda name: preset("imagenet-lt", name),
        lambda name: preset_for("mine", name, 48, "dit"),
    ):
        config, plain = make(row), make("ddpm")
        on = {name: value for name, value in vars(config.loss).items() if name in TERM_OPTIONS}
        assert {name: value for name, value in on.items() if value} == FURTHER_TERM_ROWS[row]
        loss = replace(config.loss, **{name: type(value)(0) for name, value in on.items()})
        model = plain.model if row != "two_mask" else replace(plain.model, dropout=0.1)
        assert replace(config, preset="ddpm", loss=loss) == replace(plain, model=model)


def test_every_further_term_is_in_a_row():
    in_rows = {term for row in FURTHER_TERM_ROWS.values() for term in row}
    assert {"tcfg"} | in_rows == set(TERM_OPTIONS)


def test_a_first_run_of_ones_own_images_is_looked_at_after_a_twentieth():
    config = preset("celeba5", "small")
    first = min(config.train.eval_at)
    assert first <= config.train.total_images / 20 and config.train.sample_every
