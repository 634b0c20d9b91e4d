"""The model card: what a network learnt, by which objective, and how good its images are."""

from collections.abc import Mapping, Sequence

from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import Manifest
from cbdm_scale.evaluation.report.missing import missing_words
from cbdm_scale.evaluation.results import Evaluation, SetResult
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.pretrained.network import PretrainedNetwork

LAWS = {1.0: "train", 0.5: "sqrt", 0.0: "bal"}
"""label_power -> the paper's name of the distribution of y'."""


def write_card(
    origin: PretrainedNetwork,
    real: Manifest | None,
    evaluation: Evaluation | None,
    for_others: Mapping[str, list[str]],
) -> str:
    """README.md. ``for_others``: file or folder -> lines about it, for people."""
    parts = [
        f"# {origin.name}",
        "A class-conditional diffusion model of images, trained by cbdm_scale (Qin et al., "
        "Class-Balancing Diffusion Models, CVPR 2023).",
        "## Files\n",
        "- `model.safetensors`: the averaged weights; `config.json`: the run's configuration.\n"
        + "\n".join(
            f"- `{name}`: {line}" for name, lines in for_others.items() for line in lines
        ),
        "## Data\n",
        *data(origin, real),
        "## Objective\n",
        *objective(origin),
        "## Metrics\n",
        *(metrics(evaluation) if evaluation else [NOT_EVALUATED]),
        "## Intended use\n",
        INTENDED.format(size=origin.spec.image_size),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


NOT_EVALUATED = (
    "None: no evaluation of this checkpoint was found. `python -m cbdm_scale.evaluate --run "
    "RUN`, then export again."
)

INTENDED = """\
Images of {size} x {size} pixels for research on long-tailed generation, and for training
recognisers on more balanced data. It is not meant to stand for real images where people rely on
them, nor for classes that are not listed above. Classes with few training images are the
weakest: read the row of their group, and the share of copies of training images, before use.
What its training images may be used for limits what its images may be used for."""


def data(origin: PretrainedNetwork, real: Manifest | None) -> list[str]:
    size = " x ".join(map(str, origin.spec.image_shape))
    if real is None:
        named = origin.config.dataset or "unknown"
        return [
            f"{named}: {origin.spec.num_classes} classes, images {size}; class counts are not "
            "known here (the data set was not at hand)."
        ]
    counts = real.counts["train"]
    rows = [
        [name, group, f"{count:,}"]
        for name, group, count in zip(real.class_names, real.groups, counts, strict=True)
    ]
    return [
        f"{real.name} (fingerprint {origin.fingerprint}): {sum(counts):,} training images of "
        f"{real.num_classes} classes, {max(counts):,} down to {min(counts):,} a class, images "
        f"{size}. {real.source}",
        table("class | group | training images", rows),
    ]


def objective(origin: PretrainedNetwork) -> list[str]:
    config, loss = origin.config, origin.config.loss
    if not config.dataset:
        return ["Not known: the network comes without a run."]
    lines = []
    if loss.regularises:
        law = LAWS.get(loss.label_power, f"counts to the power {loss.label_power:g}")
        lines.append(
            f"CBDM (Equation 4): tau {loss.tau:g} (w(t) = tau t / T), gamma {loss.gamma:g}, y' "
            f"drawn as {law}, regulariser on a share {loss.reg_share:g} of the images."
        )
    else:
        lines.append(
            "DDPM (Equation 1)." if config.process == "ddpm" else "EDM (Equation 8 there)."
        )
    if loss.tcfg:
        lines.append(f"TCFG (Equations 32, 33): guidance strengths up to {loss.omega_max:g}.")
    seen = f"{origin.num_seen:,} images" if origin.num_seen is not None else "unknown length"
    lines.append(
        f"Labels dropped with probability {loss.p_uncond:g}. Trained on {seen}, "
        f"{config.train.batch_size} a step, seed {config.seed}; {noise(config)}."
    )
    if config.init_sha256:
        lines.append(f"Fine-tuned from weights {config.init_sha256}.")
    return lines


def noise(config: Config) -> str:
    """What the network's level means, and what it answers with."""
    if config.process == "ddpm":
        return f"DDPM noise, {config.diffusion.num_steps} steps"
    edm = config.edm
    return (
        f"EDM noise (Karras et al., 2022): ln(sigma) is normal with mean {edm.p_mean:g} and "
        f"deviation {edm.p_std:g}, t / T its quantile, sigma_data {edm.sigma_data:g}; the "
        "network is told ln(sigma) / 4 and answers with F of Equation 7"
    )


def metrics(evaluation: Evaluation) -> list[str]:
    """A row a guidance strength, then of the best one a row a group and a row a class."""
    best = evaluation.best
    return [
        f"Against {evaluation.num_real:,} real images of {evaluation.dataset}, features of "
        f"{evaluation.extractor} ({evaluation.extractor_fingerprint}). {LEGEND}",
        table(STRENGTH, [strength(one) for one in evaluation.sets]),
        f"By group, at omega {best.omega:g}. Copies are the share of images that are nearly a "
        "training image, by chance the same share of real images that were not trained on:",
        table(GROUP, groups(best, evaluation)),
        *classes(best, evaluation.class_names),
        *missing(missing_words(evaluation)),
    ]


LEGEND = (
    "Brackets are 95 % intervals, of the Inception Score (IS) its mean less and plus its "
    "deviation over 10 parts. omega is the guidance strength, guided by two calls of the "
    "network (cfg) or one (tcfg); s = 1 + omega is the same for diffusers, which has cfg alone."
)
STRENGTH = (
    "omega | guided by | s | images | FID | KID | IS | precision | recall | F_8 | F_1/8 | "
    "label kept"
)
GROUP = "group | trained on | FID | KID | label kept | copies | by chance"
CLASS = "class | trained on | FID | of images | KID | label kept"


def strength(one: SetResult) -> list[str]:
    return [
        f"{one.omega:g}",
        one.guidance_mode,
        f"{1 + one.omega:g}" if one.guidance_mode == "cfg" or not one.omega else "-",
        f"{one.num_images:,}",
        *(interval(found) for found in (one.fid, one.kid, one.inception_score)),
        *(number(found) for found in (one.precision, one.recall, one.f8, one.f_eighth)),
        interval(one.fidelity),
    ]


def groups(best: SetResult, evaluation: Evaluation) -> list[list[str]]:
    copies = {row.group: row.copies for row in best.memorisation}
    chance = {row.group: row.copies for row in evaluation.held_out_copies}
    return [
        [
            row.group or "all",
            f"{row.num_train:,}",
            *(interval(found) for found in (row.fid, row.kid, row.fidelity)),
            *(number(found.get(row.group)) for found in (copies, chance)),
        ]
        for row in best.table.pooled
    ]


def classes(best: SetResult, names: Sequence[str]) -> list[str]:
    """A row a class; FID is of as many images of every class, and not to be compared above."""
    if not best.table.classes:
        return []
    rows = [
        [
            str(row.label if row.label is None or not names else names[row.label]),
            f"{row.num_train:,}",
            interval(row.fid),
            " and ".join(f"{images:,}" for images in row.fid_images or ()) or "-",
            *(interval(found) for found in (row.kid, row.fidelity)),
        ]
        for row in best.table.classes
    ]
    return [
        "By class, at the same strength. FID is of so many real and generated images, which "
        "makes it larger than that of a group:",
        table(CLASS, rows),
    ]


def missing(lines: Sequence[str]) -> list[str]:
    return ["Not computed:", "\n".join(f"- {line}" for line in lines)] if lines else []


def table(head: str, rows: list[list[str]]) -> str:
    """A table of Markdown; ``head`` has its columns with | between them."""
    line = "|".join("---" for _ in head.split("|"))
    cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([f"| {head} |", f"|{line}|", *(f"| {row} |" for row in cells)])


def interval(found: Interval | None) -> str:
    return "-" if found is None else str(found)


def number(found: float | None) -> str:
    return "-" if found is None else f"{found:.4g}"
