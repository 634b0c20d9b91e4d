"""The record of an evaluation: every number, and what MLflow calls it.

Evaluations during training, beside it and by command fill the same record (store.py stores
it); what was not computed is None, and ``missing`` says why.
"""

import re
from dataclasses import dataclass
from typing import Literal

from cbdm_scale.data.guidance_strength import Strength, as_key, as_name
from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.options import EvalConfig
from cbdm_scale.metrics.per_class import CLASS_MEASURES, ClassTable

FORMAT = 1

Scores = dict[str, dict[str, float]]
"""Guidance strength (``strength.as_key``: "1.0") -> name -> value."""


@dataclass(frozen=True)
class Missing:
    """A number that is not there."""

    name: str
    """The field of ``SetResult`` that is None."""

    reason: str


@dataclass(frozen=True)
class ClassExamples:
    """The first images of a class, by their numbers in their sets."""

    label: int
    real: tuple[int, ...]
    """In the eval split."""

    generated: tuple[int, ...]
    nearest: tuple[int, ...]
    """The training image, of any class, nearest to each generated one; empty if not known."""


@dataclass(frozen=True)
class SetResult:
    """All numbers of one set of generated images against the eval split."""

    images: str
    """Where the set is, a path or URL; "" for images that were never stored."""

    omega: Strength
    guidance_mode: str
    """cfg, tcfg where the network knows omega itself, or autoguidance."""

    num_images: int

    fid: Interval | None = None
    kid: Interval | None = None
    sliced_wasserstein: Interval | None = None
    fld: Interval | None = None
    """The mean over the classes that have one."""

    inception_score: Interval | None = None
    """low and high: its mean plus and minus the standard deviation over 10 splits."""

    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    f8: float | None = None
    f_eighth: float | None = None
    prd_note: str = ""
    """The clusters of the PRD curve, and a cap that makes it incomparable."""

    prd_precision: tuple[float, ...] = ()
    """The PRD curve at 1,001 angles; empty where there is none."""

    prd_recall: tuple[float, ...] = ()

    fidelity: Interval | None = None
    shown: tuple[int, ...] = ()
    """Images that the classifier takes for each class (K,); empty without one."""

    table: ClassTable = ClassTable((), ())
    """A row a class, and all, many, medium, few."""

    memorisation: tuple[GroupMemorisation, ...] = ()
    """All, many, medium, few; empty where training images are not at hand."""

    missing: tuple[Missing, ...] = ()
    examples: tuple[ClassExamples, ...] = ()
    """Images for the report, of a few classes, the most frequent first."""

    guide: str = ""
    """Of autoguidance: the guide's checkpoint and weights, 000000024000-ema."""

    apart: tuple[str, ...] = ()
    """How its images were made otherwise than the run's own evaluations make theirs, in words
    of MLflow's names: sample.num_steps_50, seed_7, samples_digits.npz-1a2b3c4d."""

    @property
    def scores(self) -> dict[str, float]:
        """Every number that is there by its name: fid, fid_few, recall, copies_all, ..."""
        return {k: v.value if isinstance(v, Interval) else v for k, v in self.named().items()}

    def named(self) -> dict[str, Interval | float]:
        """As ``scores``, with the intervals of those that have one."""
        found: dict[str, Interval | float | None] = {}
        for name in CLASS_MEASURES:
            found[name] = getattr(self, name)
            rows = [row for row in self.table.pooled if row.group]
            found |= {f"{name}_{row.group}": getattr(row, name) for row in rows}
            found[f"macro_{name}"] = self.table.macro(name)
            worst = self.table.worst(name)
            found[f"worst_{name}"] = getattr(worst, name) if worst else None
        found |= {f"recall_{row.group}": row.recall for row in rows}
        for name in ("precision", "recall", "density", "coverage", "f8", "f_eighth"):
            found[name] = getattr(self, name)
        found["inception_score"] = self.inception_score
        for copies in self.memorisation:
            found[f"copies_{copies.group or 'all'}"] = copies.copies
            found[f"median_ratio_{copies.group or 'all'}"] = copies.median_ratio
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SpaceResult:
    """The numbers of all sets in one feature space, that of an extractor."""

    extractor: str
    extractor_fingerprint: str
    held_out_copies: tuple[GroupMemorisation, ...]
    """The memorisation check of real images that were not trained on: what chance gives."""

    sets: tuple[SetResult, ...]
    """In order of omega, numbers first."""

    floor: SetResult | None = None
    """What real images score in the place of as many generated ones; None: not computed."""

    shuffled: SetResult | None = None
    """What these score with their labels shuffled; None: not computed."""

    @property
    def best(self) -> SetResult:
        """The set with the smallest FID; the first one where there is no FID."""
        known = [s for s in self.sets if s.fid is not None]
        return min(known, key=lambda s: s.fid.value if s.fid else 0.0, default=self.sets[0])


@dataclass(frozen=True, kw_only=True)
class Evaluation(SpaceResult):
    """One evaluation of one checkpoint: a set for each guidance strength.

    Its own numbers are those of the main feature space; ``further`` has others.
    """

    id: str
    """The folder's name."""

    run: str
    """Name of the run."""

    checkpoint: str
    """Its path or URL."""

    trained_images: int | None
    dataset: str
    dataset_fingerprint: str
    class_names: tuple[str, ...]
    resize: str
    num_real: int
    """Images of the eval split that were compared with."""

    further: tuple[SpaceResult, ...] = ()
    """The same sets in the feature spaces of other extractors."""

    weighed: bool = False
    """Whether every class of the real images counts alike, however many it has."""

    weights: str = "ema"
    """ema, raw, or power:WIDTH: which weights of the checkpoint."""

    key: str = ""
    """Digest of all options that decide the numbers: others do not compare."""

    made_by: Literal["training", "command"] = "command"
    format: int = FORMAT

    @property
    def spaces(self) -> tuple[SpaceResult, ...]:
        """The main feature space, and the further ones."""
        return (self, *self.further)

    def best_by_space(self) -> tuple[SetResult, ...]:
        """The numbers of the best set in every one of ``spaces``."""
        place = self.sets.index(self.best)
        return tuple(space.sets[place] for space in self.spaces)

    @property
    def scores(self) -> Scores:
        """Of every strength."""
        return {as_key(found.omega): found.scores for found in self.sets}

    def metrics(self, config: EvalConfig) -> dict[str, float]:
        """Every number by its name in MLflow (``metric_name``); intervals are in metrics.json.

        What differs from the run's own evaluations (``config``) stands under a name of its own:
        eval/power_0.1/guidance_1/fid, eval/inception/50000_images/guidance_1/fid,
        eval/sample.num_steps_50/seed_7/guidance_1/fid.
        """
        numbers: dict[str, float] = {}
        for space in self.spaces:
            numbers |= self._metrics_in(space, config)
        return numbers

    def _metrics_in(self, space: SpaceResult, config: EvalConfig) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for found in space.sets:
            parts = self._differences(space, found, config)
            numbers |= {
                metric_name(name, found.omega, *parts): value
                for name, value in found.scores.items()
            }
            floor = space.floor.scores if space.floor else {}
            numbers |= {
                metric_name(f"floor_{name}", None, *parts): value
                for name, value in floor.items()
                if not name.startswith(("macro", "worst"))
            }
            for row in space.held_out_copies:
                if row.copies is not None:
                    name = metric_name(f"held_out_copies_{row.group or 'all'}", None, *parts)
                    numbers[name] = row.copies
        return numbers

    def _differences(
        self, space: SpaceResult, found: SetResult, config: EvalConfig
    ) -> tuple[str, ...]:
        """What sets a set of the command apart from the run's own evaluations."""
        if self.made_by == "training":
            return ()
        parts = [] if self.weights == "ema" else [self.weights]
        if space.extractor != config.extractor:
            parts.append(space.extractor)
        if self.resize != config.resize:
            parts.append(self.resize)
        if found.num_images != config.num_images:
            parts.append(f"{found.num_images}_images")
        if found.guidance_mode != config.guidance_mode:
            parts.append("-".join(filter(None, (found.guidance_mode, found.guide))))
        return (*parts, *found.apart)


def metric_name(name: str, omega: Strength | None = None, *parts: str) -> str:
    """What MLflow calls a number of an evaluation: eval/guidance_<omega>/<name>.

    ``omega`` None: a number of no one strength. ``parts``: what sets it apart from the run's
    own evaluations.
    """
    words = [re.sub(r"[^\w.-]+", "_", part) for part in parts]
    strength = [] if omega is None else [f"guidance_{as_name(omega)}"]
    return "/".join(["eval", *words, *strength, name])
