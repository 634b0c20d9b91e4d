import hashlib
import json
import re
from dataclasses import asdict, replace

import pytest

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.config.presets import PRESETS, preset
from cbdm_scale.config.schema import (
    RUNTIME_OPTIONS,
    Config,
    from_dict,
    identity_options,
    is_runtime,
)
from cbdm_scale.data.options import DataConfig
from cbdm_scale.diffusion.options import EDMConfig
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.models.options import BACKBONES, UNetConfig, backbone_config
from cbdm_scale.recognition.options import ClassifyOptions
from cbdm_scale.sampling.options import SamplerConfig, usual_sampler
from cbdm_scale.storage.json import flatten
from cbdm_scale.training.options import TrainConfig

FLAT = Config().flat()


def with_option(option, value):
    """The default configuration with one option changed."""
    tree = json.loads(json.dumps(asdict(Config())))
    *parents, last = option.split(".")
    part = tree
    for name in parents:
        part = part[name]
    assert last in part
    part[last] = value
    return from_dict(tree)


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    return value / 2 or 0.5


ACCEPTED = {
    "eval.recall_images": 100,
    "cluster.gpus_per_worker": 0.75,
    "cluster.min_workers": 1,
    "cluster.max_preemption_failures": 3,
}
"""Of options that do not take any number."""
NUMBERS = [option for option, value in FLAT.items() if isinstance(value, int | float)]


@pytest.mark.parametrize("option", NUMBERS)
def test_an_identity_option_changes_the_name_of_a_run_and_runtime_does_not(option):
    other = with_option(option, ACCEPTED.get(option, changed(FLAT[option])))
    assert (other.run_name == Config().run_name) == is_runtime(option)


@pytest.mark.parametrize(
    "option, value",
    [
        ("dataset", "cifar10_lt"),
        ("init_labels", "mean"),
        ("init_sha256", "0123456789abcdef"),
        ("loss.name", "ddpm"),
        ("data.augment", "ada"),
        ("train.precision", "fp32"),
        ("model.multipliers", [1, 2]),
        ("model.attention", [2]),
    ],
)
def test_an_identity_option_in_words_changes_the_name_too(option, value):
    assert with_option(option, value).run_name != Config().run_name


IDENTITY = """
dataset seed backbone init_labels init_sha256
data.flip data.augment data.augment_p data.jitter_rare
data.resample_power data.balanced_fraction
process diffusion.num_steps diffusion.beta_1 diffusion.beta_T
edm.sigma_data edm.p_mean edm.p_std
model.channels model.multipliers model.num_blocks model.attention model.groups model.dropout
loss.name loss.tau loss.gamma loss.label_power loss.p_uncond loss.reg_share
loss.tcfg loss.tcfg_target loss.omega_max loss.tcfg_gamma
loss.delta_fm loss.t2h loss.two_mask loss.two_mask_diversity loss.ccua_align
loss.ccua_contrast loss.coral loss.coral_temperature loss.dispersive
train.batch_size train.lr train.warmup_images train.max_grad_norm train.ema_halflife
train.ema_ramp train.precision train.trainable train.lr_schedule
"""
"""Written out once more: an option that changes sides makes old runs unreachable."""


def test_what_a_run_learns_is_its_identity_and_nothing_else_is():
    assert sorted(identity_options(Config().flat())) == sorted(IDENTITY.split())


def test_a_rate_that_falls_to_the_end_makes_the_number_of_images_part_of_the_run():
    usual, falls = Config().train, replace(Config().train, lr_schedule="linear")
    for train, alike in ((usual, True), (falls, False)):
        short, long = (
            Config(train=replace(train, total_images=total)) for total in (9_600, 96_000)
        )
        assert (short.run_name == long.run_name) == alike
        assert short.is_scheduled != alike


def test_every_runtime_option_exists():
    for option in RUNTIME_OPTIONS:
        assert any(name == option or name.startswith(option) for name in FLAT), option


def test_an_option_at_its_default_leaves_the_name_of_a_run_alone():
    """So a new option renames no run that does not use it."""
    of_nothing = hashlib.sha256(b"{}").hexdigest()[:8]
    assert Config().run_name == f"digits_lt-cbdm-{of_nothing}"


def test_the_default_name_says_data_set_and_loss():
    name = Config(dataset="cifar10-lt", loss=LossConfig(name="ddpm")).run_name
    assert name.startswith("cifar10_lt-ddpm-") and len(name) == len("cifar10_lt-ddpm-") + 8
    assert Config(name="mine").run_name == "mine"
    guided = Config(loss=LossConfig(name="ddpm", tcfg=True)).run_name
    assert guided.startswith("digits_lt-ddpm_tcfg-")
    for row, words in (("edm", "edm"), ("cbdm_edm", "edm_cbdm")):
        assert preset("digits_lt", row).run_name.startswith(f"digits_lt-{words}-")
    tcfg = Config(process="edm", sample=usual_sampler("edm"), loss=LossConfig(tcfg=True))
    assert tcfg.run_name.startswith("digits_lt-edm_cbdm_tcfg-")


@pytest.mark.parametrize("row", PRESETS)
def test_a_configuration_survives_json(row):
    config = PRESETS[row]()
    assert from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_configuration_on_any_backbone_survives_json(backbone):
    config = Config(backbone=backbone, model=backbone_config(backbone))
    assert from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_flat_names_are_dotted_paths():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert FLAT["loss.tau"] == 1.0 and FLAT["model.multipliers"] == [1, 2, 2, 2]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Config(backbone="dit"), r"backbone \(dit\) has no model of UNetConfig. Try"),
        (
            lambda: Config(backbone="gan"),
            r"backbone must be unet, .* got 'gan'. Try --backbone unet",
        ),
        (lambda: Config(name="a/b"), r"name \(a/b\).*use letters"),
        (
            lambda: Config(sample=SamplerConfig(num_steps=2000)),
            r"sample.num_steps \(2000\).*Try --sample.num-steps 1000",
        ),
        (
            lambda: Config(process="edm"),
            r"sample.name \(ddim\) is no sampler of the process edm. Try --sample.name heun",
        ),
        (
            lambda: Config(sample=usual_sampler("edm")),
            r"sample.name \(heun\) is no sampler of the process ddpm. Try --sample.name ddim",
        ),
        (
            lambda: Config(process="vp"),
            r"process must be ddpm or edm, got 'vp'. Try --process ddpm",
        ),
        (
            lambda: Config(model=UNetConfig(dropout=0), loss=LossConfig(two_mask=1)),
            r"loss.two_mask \(1\).*model.dropout \(0.0\).*Try --model.dropout 0.1",
        ),
        (lambda: EDMConfig(p_std=0), r"edm.p_std must be above 0, got 0"),
        (
            lambda: Config(cluster=ClusterConfig(workers=3)),
            r"train.batch_size \(64\).*workers \(3\).*Try --train.batch-size 63",
        ),
        (lambda: ClusterConfig(workers=-1), r"cluster.workers.*got -1. Try --c.*workers 2"),
        (lambda: ClusterConfig(cpus_per_worker=-1), r"cluster.cpus_per_worker.*got -1. Try"),
        (lambda: ClusterConfig(timeout_s=0), r"cluster.timeout_s.*got 0. Try"),
        (lambda: DataConfig(max_bad=2), r"data.max_bad.*got 2. Try"),
        (
            lambda: DataConfig(resample_power=-1),
            r"data.resample_power.*got -1. Try --data.resample-power 1",
        ),
        (
            lambda: DataConfig(resample_power=2),
            r"data.resample_power.*got 2. Try --data.resample-power 1",
        ),
        (
            lambda: DataConfig(balanced_fraction=1.5),
            r"balanced_fraction.*got 1.5. Try --data.balanced-fraction 0",
        ),
        (lambda: DataConfig(num_workers=-1), r"data.num_workers.*got -1. Try"),
        (
            lambda: DataConfig(augment="mixup"),
            "data.augment must be none, ada or diffaug, got 'mixup'",
        ),
        (
            lambda: DataConfig(augment_p=1.5),
            r"data.augment_p.*got 1.5. Try --data.augment-p 0.12",
        ),
        (lambda: DataConfig(cache_gb=-1), r"data.cache_gb.*got -1. Try --data.cache-gb 16"),
        (lambda: DataConfig(cache="s3://x"), r"data.cache \(s3://x\).* own disk.* try"),
        (lambda: DataConfig(timeout_s=0), r"data.timeout_s.*got 0. Try --data.timeout-s 120"),
        (lambda: EvalConfig(guidance=(-1.0,)), r"eval.guidance.*got -1"),
        (lambda: EvalConfig(guidance=("much",)), r"eval.guidance \(much\) is no strength"),
        (lambda: EvalConfig(guidance_mode="both"), r"eval.guidance_mode must be.*got 'both'"),
        (
            lambda: Config(eval=EvalConfig(guidance_mode="tcfg")),
            r"eval.guidance_mode \(tcfg\) needs a network.*--loss.tcfg, or.*cfg",
        ),
        (
            lambda: Config(
                loss=LossConfig(tcfg=True),
                eval=EvalConfig(guidance_mode="tcfg", guidance=(0.5, 1.6)),
            ),
            r"eval.guidance_mode \(tcfg\) knows strengths up to 1 .*got 1.6",
        ),
        (
            lambda: Config(
                loss=LossConfig(tcfg=True),
                eval=EvalConfig(guidance_mode="tcfg", guidance=("many=0.5,few=1.7",)),
            ),
            r"eval.guidance_mode \(tcfg\) knows strengths up to 1 .*got 1.7",
        ),
        (lambda: LossConfig(tau=-1), r"loss.tau.*got -1. Try --loss.tau 1"),
        (lambda: LossConfig(reg_share=0), r"loss.reg_share.*got 0.*--loss.name ddpm"),
        (lambda: TrainConfig(batch_size=0), r"train.batch_size.*got 0"),
        (lambda: TrainConfig(lr=0), r"train.lr.*got 0"),
        (lambda: TrainConfig(lr=float("nan")), r"train.lr.*got nan"),
        (
            lambda: TrainConfig(warmup_images=-1),
            r"train.warmup_images.*got -1. Try --train.warmup-images",
        ),
        (lambda: UNetConfig(channels=33), r"model.channels \(33\).*Try --model.channels 64"),
    ],
)
def test_errors_name_option_value_and_way_out(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "/x", "a/b", "a b", "ü", "x" * 201])
@pytest.mark.parametrize("option", ["name", "dataset"])
@pytest.mark.parametrize("options", [Config, ClassifyOptions])
def test_what_becomes_a_folder_is_one_folder_below_its_root(options, option, name):
    told = re.escape(f"{option} ({name[:80]}) becomes a folder")
    with pytest.raises(ValueError, match=rf"^{told}: .* Try --{option} [a-z]+"):
        options(**{option: name})


@pytest.mark.parametrize("options", [Config, ClassifyOptions])
@pytest.mark.parametrize("name", ["search", "mlflow.db", "mlartifacts"])
def test_a_run_does_not_take_the_place_of_what_else_is_in_its_storage(options, name):
    with pytest.raises(ValueError, match=rf"name \({name}\) is taken.*--name my_"):
        options(name=name)
    assert options(name=f"my_{name}").name == f"my_{name}"
