"""What an evaluation found: the one value that metrics.json holds and the report is made of.

Every number that could not be computed is None, and ``missing`` says why. Plain data: written
with ``to_json``, read with ``from_json``, without loss.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from typing import Any

from cbdm_scale.metrics.intervals import Interval
from cbdm_scale.metrics.memorisation import GroupMemorisation
from cbdm_scale.metrics.per_class import ClassTable
from cbdm_scale.storage.json import parse_json

FORMAT = 2


@dataclass(frozen=True)
class Missing:
    """A number that is not there."""

    name: str
    """The field of ``SetResult`` that is None."""

    reason: str


@dataclass(frozen=True)
class SetResult:
    """All numbers of one set of generated images against the eval split."""

    images: str
    """Where the set is, a path or URL."""

    omega: float
    guidance_mode: str
    """cfg, or tcfg where the network knows omega itself."""

    num_images: int

    fid: Interval | None
    kid: Interval | None
    inception_score: Interval | None
    """low and high: its mean plus and minus the standard deviation over 10 splits."""

    precision: float | None
    recall: float | None
    density: float | None
    coverage: float | None
    f8: float | None
    f_eighth: float | None
    prd_note: str
    """The clusters of the PRD curve, and a cap that makes it incomparable."""

    prd_precision: tuple[float, ...]
    """The PRD curve at 1,001 angles; empty where there is none."""

    prd_recall: tuple[float, ...]

    fidelity: Interval | None
    table: ClassTable
    """A row a class, and all, many, medium, few."""

    memorisation: tuple[GroupMemorisation, ...]
    """All, many, medium, few; empty where training images are not at hand."""

    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one checkpoint: a set for each guidance strength."""

    id: str
    """Short word for everything that decides the numbers; the folder's name."""

    run: str
    """Name of the run."""

    checkpoint: str
    """Its path or URL."""

    trained_images: int | None
    dataset: str
    dataset_fingerprint: str
    class_names: tuple[str, ...]
    extractor: str
    extractor_fingerprint: str
    resize: str
    num_real: int
    """Images of the eval split that were compared with."""

    held_out_copies: tuple[GroupMemorisation, ...]
    """The memorisation check of real images that were not trained on: what chance gives."""

    sets: tuple[SetResult, ...]
    """In order of omega."""

    format: int = FORMAT

    @property
    def best(self) -> SetResult:
        """The set with the smallest FID; the first one where there is no FID."""
        known = [s for s in self.sets if s.fid is not None]
        return min(known, key=lambda s: s.fid.value if s.fid else 0.0, default=self.sets[0])


def to_json(evaluation: Evaluation) -> str:
    """The text of metrics.json."""
    return json.dumps(dataclasses.asdict(evaluation), indent=1, allow_nan=False)


def from_json(text: str) -> Evaluation:
    """The evaluation that ``to_json`` wrote; ValueError if damaged or of another format."""
    try:
        data = parse_json(text, "it")
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, this version reads {FORMAT}")
        found: Evaluation = _read(Evaluation, data)
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"metrics.json is damaged or of another version: {error!r}") from error


def _read(kind: Any, data: Any) -> Any:
    """``data`` of json as a value of type ``kind``: dataclass, tuple, optional or plain."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(
            **{f.name: _read(hints[f.name], data[f.name]) for f in dataclasses.fields(kind)}
        )
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in args if a is not type(None))
        return None if data is None else _read(inner, data)
    if origin is tuple:
        each = [args[0]] * len(data) if args[-1] is Ellipsis else args
        return tuple(_read(k, d) for k, d in zip(each, data, strict=True))
    if kind is float:
        return float(data)
    return data
