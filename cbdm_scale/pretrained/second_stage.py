"""A second stage of TCFG: which defaults follow from its teacher, and what that has to be."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest

IMAGES_SHARE = 0.12
"""Of the images that the teacher has seen: with its two predictions a fifth of their cost."""
WARMUP_SHARE = 0.04
"""Of the images of the stage."""
LR_FACTOR = 0.5
"""Of the teacher's rate, from which it falls to 0; with half of its batch. Both were tried on
digits and photographs (docs/results.md): a higher rate forgets more of the teacher."""


def is_second_stage(base: Config, typed: Mapping[str, Any]) -> bool:
    """Whether --init-from names a teacher, by what was typed over the defaults."""
    target = typed.get("loss.tcfg_target", base.loss.tcfg_target)
    return bool(typed.get("loss.tcfg", base.loss.tcfg)) and target != "noise"


def inherit_run(base: Config, there: Config, typed: Mapping[str, Any]) -> Config:
    """The defaults of a second stage for which no preset is named: the teacher's own options.

    Data, steps, evaluations and samples; not its machine, and not when it was looked at.
    """
    if not there.dataset:  # of a network that comes without a run
        return base
    train = replace(there.train, trainable="all", posthoc_every=0, eval_at=(), patience=0)
    workers = typed.get("cluster.workers", base.cluster.workers)  # they divide the batch
    return replace(
        there,
        name=base.name,
        init_from=base.init_from,
        init_sha256=base.init_sha256,
        train=train,
        cluster=replace(base.cluster, workers=workers),
        track=base.track,
    )


def with_second_stage(
    base: Config, num_seen: int, typed: Mapping[str, Any], chosen: Collection[str]
) -> Config:
    """The defaults as a second stage has them; of a teacher that was one its own stay.

    num_seen: images that the teacher has seen. ``typed`` will be laid over them; ValueError
    where that wants a denoising loss as well. ``chosen``: options that somebody chose; where
    no preset or file was for a network that is told its strength, those ``typed``.
    """
    if typed.get("loss.name") == "cbdm":
        raise ValueError(
            "loss.name (cbdm) cannot be beside loss.tcfg_target (teacher): a second stage "
            "learns the teacher's predictions alone, and the teacher knows CBDM's. Leave it "
            "out, or try --loss.tcfg-target noise."
        )
    if base.loss.distils:
        return base
    kept = chosen if base.loss.tcfg else typed
    usual, train, half = Config().loss, base.train, base.train.batch_size // 2
    loss = replace(usual, name="ddpm", p_uncond=base.loss.p_uncond or usual.p_uncond)
    loss = replace(loss, tcfg=True, tcfg_target="teacher", omega_max=base.loss.omega_max)
    base = replace(base, loss=loss)
    total = typed.get("train.total_images", round(IMAGES_SHARE * num_seen))
    options = {
        "loss.omega_max": 2.0,
        "data.resample_power": 0.5,
        "data.balanced_fraction": 0.0,
        "model.dropout": 0.0,  # the teacher has none: masks would be noise in what it says
        "train.total_images": max(total, 1),
        "train.batch_size": max(half - half % 2, 1),
        "train.lr": LR_FACTOR * train.lr,
        "train.lr_schedule": "linear",
        "train.warmup_images": round(WARMUP_SHARE * total),
        "train.ema_ramp": 0.05,
        "train.log_every": max(min(train.log_every, total // 20), 1),
        "eval.guidance_mode": "tcfg",
    }
    most = typed.get("loss.omega_max", options["loss.omega_max"])
    known = (one if isinstance(one, str) else min(one, most) for one in base.eval.guidance)
    options["eval.guidance"] = list(dict.fromkeys(known))
    return with_options(base, {k: v for k, v in options.items() if k not in kept})


def check_teacher(typed: str, teacher: Config, fingerprint: str, manifest: Manifest) -> None:
    """ValueError unless the network of --init-from learnt this data set, also without labels.

    ``fingerprint`` of its data set; "" where nothing says it.
    """
    if not teacher.loss.p_uncond:
        raise ValueError(
            f"init_from ({typed}) was trained with loss.p_uncond 0, so it has no prediction "
            "without label and no guidance that one call could learn. Give a network that "
            "was trained with --loss.p-uncond 0.1."
        )
    if fingerprint not in ("", manifest.fingerprint):
        learnt = f"{teacher.dataset}, fingerprint {fingerprint}"
        raise ValueError(
            f"init_from ({typed}) learnt another data set ({learnt}) than {manifest.name} "
            f"({manifest.fingerprint}), and a second stage learns from its teacher's own "
            "images. Give --dataset and --data.root of that one, or --loss.tcfg-target noise."
        )


def check_rows(typed: str, rows: Sequence[int | None], how: str) -> None:
    """ValueError if the teacher lacks a class: ``rows`` (K,) are its label rows by class."""
    if None in rows:
        raise ValueError(
            f"init_from ({typed}) does not know all classes (label rows {how}), and a second "
            "stage learns nothing but what its teacher knows. Give a network of this data set, "
            "--init-labels index if its classes are in this order, or --loss.tcfg-target noise."
        )


def describe_stage(config: Config) -> str:
    """The line by which a run says that it is one."""
    mode = config.eval.guidance_mode
    calls = "one call" if mode == "tcfg" else "two calls"
    return (
        f"stage    second (loss.tcfg_target teacher): one call learns what the network makes "
        f"of two, omega 0 to {config.loss.omega_max:g}; evaluated with {calls} a step "
        f"(eval.guidance_mode {mode})"
    )
