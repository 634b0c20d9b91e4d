"""Which numbers of a run MLflow gets, what they mean, and the note that says so on its page.

Few charts are read: a term whose value follows from another's is left out, and a counter that
stands at 0.
"""

from collections.abc import Mapping, Sequence

from cbdm_scale.data.groups import Group
from cbdm_scale.training.checkpoint import Progress

FOLLOWS = "loss/rc", "loss/gc"
"""Commitment terms: L_rc has the value of L_r, L_gc is gamma L_g; their gradients differ."""

MEANINGS = {
    "loss/total": "what is minimised, a mean over images since the last point",
    "loss/dm": "error of the denoiser (L_DM, Equation 1), where there are other terms",
    "loss/r": "distance between the predictions for two labels, weighted (L_r, Equation 4; "
    "L_rc has the same value)",
    "loss/g": "error of the guided prediction (L_g, Equation 32; L_gc is gamma times it)",
    "loss/push": "size of the guidance that one call learns in a second stage; loss/total over "
    "it is the share that is missing",
    "loss/delta_fm": "squared distance from targets of another class, weighted, and negative",
    "loss/t2h": "what transfer from tail to head adds to the error of the denoiser",
    "loss/two_mask": "distance between the predictions of two dropout masks, weighted by class",
    "loss/ccua_align": "distance between the predictions with and without label, weighted",
    "loss/ccua_contrast": "contrast of features without label, weighted (InfoNCE)",
    "loss/coral": "supervised contrast of features, weighted (SupCon)",
    "loss/dispersive": "log of the mean nearness of features, weighted, negative",
    "images_per_second": "over all workers, without pauses",
    "data_wait": "share of the time in which workers wait for images",
    "memory_gib": "largest memory of a worker's process",
    "paused_s": "seconds without training: grids, checkpoints, evaluations",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before it is clipped, of the last step",
    "skipped_steps": "steps left out because their gradient was not finite",
    "substitutions": "damaged images that others replaced; by class group below it",
    "fid": "distance to the real images, lower is better; _many, _medium, _few: by class group",
    "kid": "the same without bias for few images (not times 1,000 as in the report)",
    "sliced_wasserstein": "distance along single directions (MIND), lower is better",
    "fld": "likelihood of held-out images, 0 is as good as real; rises with copies",
    "fidelity": "share of images in which the classifier sees the label that was asked for",
    "inception_score": "higher is better",
    "precision": "generated images near a real one",
    "recall": "real images near a generated one",
    "density": "precision that forgives outliers",
    "coverage": "real images with a generated one nearby",
    "f8": "diversity (F_8 of the PRD curve)",
    "f_eighth": "fidelity (F_1/8 of the PRD curve)",
    "copies": "share of images as close to a training image as a copy is",
    "held_out_copies": "the same of real images that were not trained on: what chance gives",
    "median_ratio": "distance to the nearest training image, in units of the usual one",
    "tail_warning": "1 while the few classes are copied, lose variety, or get worse",
}
"""The last part of a metric's name, or all of it -> what it is."""


def logged(
    numbers: Mapping[str, float], progress: Progress, groups: Sequence[Group]
) -> dict[str, float]:
    """What MLflow gets of a report: ``numbers`` of the meter, and the counters so far.

    groups: of each of the K classes.
    """
    terms = {name for name in numbers if name.startswith("loss/")}
    terms -= {*FOLLOWS, "loss/total", "loss/push"}
    said = {*FOLLOWS, *(terms if len(terms) == 1 else ())}  # one alone is the total
    found = {name: value for name, value in numbers.items() if name not in said}
    counts = {
        "paused_s": found.pop("paused_s", 0.0),
        "skipped_steps": float(progress.skipped_steps),
        "substitutions": float(sum(progress.substitutions)),
    }
    for group, count in zip(groups, progress.substitutions, strict=True):
        name = f"substitutions/{group}"
        counts[name] = counts.get(name, 0.0) + count
    return found | {name: count for name, count in counts.items() if count}


def meaning(name: str) -> str:
    """Of a metric by its name in MLflow; "" where nobody wrote one."""
    last = name.rpartition("/")[2]
    for beginning in ("floor_", "macro_", "worst_"):
        last = last.removeprefix(beginning)
    for ending in ("_all", "_many", "_medium", "_few"):
        last = last.removesuffix(ending)
    if name.startswith("substitutions/"):
        last = "substitutions"
    return MEANINGS.get(name) or MEANINGS.get(last, "")


def note(about: str) -> str:
    """What MLflow shows as a run's description: what it is, and what its charts are."""
    rows = "\n".join(f"| `{name}` | {words} |" for name, words in MEANINGS.items())
    return f"""{about}

Steps are training images seen. Numbers of an evaluation stand under `eval/guidance_OMEGA/`,
OMEGA the strength of guidance; what the evaluate command measured otherwise than the run itself
has that in its name too. macro_ is the mean over classes, worst_ the worst class, floor_ what
as many real images get. Grids of samples are among the artifacts, in `images`.

| metric | meaning |
|---|---|
{rows}
"""
