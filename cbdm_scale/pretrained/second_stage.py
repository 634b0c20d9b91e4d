"""A second stage of TCFG: which defaults follow from its teacher, and what that has to be."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest

OMEGA_MAX = 2.0
"""Of a second stage: rare classes are at their best above 1."""

EMA_RAMP = 0.05
"""Of a second stage: its average begins as the teacher, which it has to forget."""


def is_second_stage(base: Config, typed: Mapping[str, Any]) -> bool:
    """Whether --init-from names a teacher, by what was typed over the defaults."""
    target = typed.get("loss.tcfg_target", base.loss.tcfg_target)
    return bool(typed.get("loss.tcfg", base.loss.tcfg)) and target != "noise"


def inherit_run(base: Config, there: Config) -> Config:
    """The defaults of a second stage for which no preset is named: the teacher's own options.

    Data, steps, evaluations and samples; not its machine.
    """
    if not there.dataset:  # of a network that comes without a run
        return base
    train = replace(there.train, trainable=base.train.trainable)
    return replace(
        there,
        name=base.name,
        init_from=base.init_from,
        init_sha256=base.init_sha256,
        train=train,
        cluster=base.cluster,
        track=base.track,
    )


def with_second_stage(
    base: Config, typed: Mapping[str, Any], chosen: Collection[str]
) -> Config:
    """The defaults as a second stage has them: its objective, its average, one call a step.

    ``typed`` will be laid over them; ValueError where that wants a denoising loss as well.
    """
    if typed.get("loss.name") == "cbdm":
        raise ValueError(
            "loss.name (cbdm) cannot be beside loss.tcfg_target (teacher): a second stage "
            "learns the teacher's predictions alone, and the teacher knows CBDM's. Leave it "
            "out, or try --loss.tcfg-target noise."
        )
    usual = Config().loss
    omega_max = base.loss.omega_max if "loss.omega_max" in chosen else OMEGA_MAX
    loss = replace(
        usual,
        name="ddpm",
        p_uncond=base.loss.p_uncond or usual.p_uncond,
        tcfg=True,
        tcfg_target="teacher",
        omega_max=omega_max,
    )
    most, guidance = typed.get("loss.omega_max", omega_max), base.eval.guidance
    if "eval.guidance" not in chosen:
        known = (one if isinstance(one, str) else min(one, most) for one in guidance)
        guidance = tuple(dict.fromkeys(known))
    return replace(
        base,
        loss=loss,
        train=replace(base.train, ema_ramp=base.train.ema_ramp or EMA_RAMP),
        eval=replace(base.eval, guidance=guidance, guidance_mode="tcfg"),
    )


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
