"""A protocol: which methods are compared, with how much compute, and by which number.

One unit of compute is the training of the control on one image. A stop is that much of it: a
method whose step costs c stops after stop / c images.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.preset_file import may_hold, parse_yaml
from cbdm_scale.config.presets import find_preset
from cbdm_scale.config.schema import Config
from cbdm_scale.data.manifest import canonical_name
from cbdm_scale.storage.checks import (
    Length,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    check_fields,
    check_name,
)
from cbdm_scale.storage.json import flatten, structure
from cbdm_scale.storage.wording import clip, shorten

SHIPPED = Path(__file__).parent.parent / "protocols"
Guidance = Literal["one", "by_group", "both"]
PhaseName = Literal["screen", "confirm"]
Stops = Annotated[tuple[PositiveInt, ...], Length()]
DECIDED = ("seed", "dataset", "preset", "train.total_images")
"""Options that a protocol says elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row: how networks are trained, and how they are guided."""

    preset: str = "ddpm"
    """Row of the data set's presets that it starts from."""

    options: dict[str, Any] = field(default_factory=dict)
    """Options of the train command, by dotted name or nested, laid over it."""

    cost: PositiveFloat | None = None
    """Of a training step, in steps of the control; None: measured on this machine."""

    guidance: Guidance = "one"
    """one: one strength for all classes. by_group: one for each group of classes. both: a line
    of the table each, from the same networks."""

    stops: tuple[PositiveInt, ...] = ()
    """Instead of the phase's."""

    strengths: tuple[float, ...] = ()
    """Instead of the phase's."""

    of: str = ""
    """The row whose networks it has: nothing more is trained, and its options are of sampling
    alone (sample.*, eval.guidance_mode). "" is its own."""

    guide: NonNegativeInt = 0
    """Autoguidance by the same network at this earlier stop of its own; 0 is none. The row is
    looked at at the later stops."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "options", flatten(self.options))

    @property
    def variants(self) -> tuple[Literal["one", "by_group"], ...]:
        """The lines of the table that its networks give."""
        return ("one", "by_group") if self.guidance == "both" else (self.guidance,)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How much is done: of a screen little, of a confirmation what the intervals need."""

    seeds: Annotated[tuple[NonNegativeInt, ...], Length()]
    """Of the networks; a network's images are of noise of the same seed, for all methods."""

    stops: Stops
    """Compute after which a network is looked at, in images of the control; the last is the
    budget."""

    strengths: Annotated[tuple[NonNegativeFloat, ...], Length()]
    """Of guidance."""

    rows: tuple[str, ...] = ()
    """Methods, the control always among them; (): all."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("seeds", "stops", "strengths"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} ({shorten(values)}) has a value twice.")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The content of a protocol's file."""

    dataset: str
    control: str
    """The row that the others are compared with; its training step is the unit of compute."""

    rows: dict[str, Method]
    screen: Phase
    """One seed and few stops, to see where the best of each method lies; then discarded."""

    confirm: Phase
    """Other seeds, and few rows."""

    options: dict[str, Any] = field(default_factory=dict)
    """Options of the train command for every row; sample.* are how images are made."""

    num_images: Annotated[int, Range(ge=4)] = 1_000
    """Generated images of a network at a stop and strength, both halves together."""

    criterion: dict[str, float] = field(default_factory=lambda: {"fid": 1.0})
    """What is smallest at the best stop and strength: a sum of scores with their weights."""

    extractor: tuple[str, ...] | str = "classifier"
    """Networks whose features are compared, as eval.extractor has them: one, or several, of
    which the first chooses stop and strength."""

    about: str = ""
    """In words."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "dataset", canonical_name(self.dataset))
        object.__setattr__(self, "options", flatten(self.options))
        if not self.extractors:
            raise ValueError("extractor names none. Try extractor: classifier.")
        for name in self.rows:
            check_name("rows", str(name))
        if self.control not in self.rows:
            raise ValueError(
                f"control ({self.control}) is none of the rows {shorten(list(self.rows))}."
            )
        if self.rows[self.control].cost not in (None, 1.0):
            raise ValueError(
                f"rows.{self.control}.cost ({self.rows[self.control].cost}): the control's "
                "step is the unit, and costs 1. Leave it out."
            )
        for part in (self.screen, self.confirm):
            if unknown := set(part.rows) - set(self.rows):
                raise ValueError(
                    f"rows ({shorten(sorted(unknown))}) are not in the protocol, which has "
                    f"{shorten(list(self.rows))}."
                )
        if both := set(self.screen.seeds) & set(self.confirm.seeds):
            raise ValueError(
                f"seeds ({shorten(sorted(both))}) are of both phases: the networks "
                "that chose the rows would confirm their own choice. Take other seeds for one."
            )
        for name in self.rows:
            self._check_use(name)
        for options in (self.options, *(row.options for row in self.rows.values())):
            for option in options:
                if option in DECIDED or not may_use(option):
                    raise ValueError(
                        f"options: {option} is no part of a method. Take it out: the protocol "
                        "or the command says it."
                    )

    def _check_use(self, name: str) -> None:
        """ValueError if a row with the networks of another would have others, or is guided in
        two ways."""
        row = self.rows[name]
        mode = row.options.get("eval.guidance_mode", self.options.get("eval.guidance_mode"))
        if row.guide and mode == "tcfg":
            raise ValueError(
                f"rows.{name}: guide ({row.guide}) and eval.guidance_mode (tcfg) are two ways "
                "to guide. Take one of them out."
            )
        if not row.of:
            return
        if row.of not in self.rows or self.rows[row.of].of:
            own = [other for other in self.rows if not self.rows[other].of]
            raise ValueError(
                f"rows.{name}.of ({row.of}) is no row with networks of its own. Choose from: "
                f"{shorten(own)}."
            )
        trained = [o for o in row.options if not o.startswith(("sample.", "eval."))]
        trained += ["cost"] * (row.cost is not None) + ["stops"] * bool(row.stops)
        trained += ["preset"] * (row.preset != Method.preset)
        if trained:
            raise ValueError(
                f"rows.{name}: {shorten(trained)} would make other networks than those of "
                f"{row.of}. Take it out, or leave out of: {row.of}."
            )
        if name == self.control:
            raise ValueError(
                f"control ({name}) has the networks of {row.of}. Make {row.of} the control."
            )

    @property
    def extractors(self) -> tuple[str, ...]:
        """Of each feature space."""
        return (self.extractor,) if isinstance(self.extractor, str) else self.extractor

    def network(self, name: str) -> str:
        """The row whose networks a row has."""
        return self.rows[name].of or name

    def phase(self, name: PhaseName) -> Phase:
        """A phase by its name."""
        return self.screen if name == "screen" else self.confirm

    def names(self, phase: Phase) -> tuple[str, ...]:
        """The rows of a phase in the order of the file, the control first."""
        others = [n for n in self.rows if n != self.control and n in (phase.rows or self.rows)]
        return (self.control, *others)

    def strengths(self, name: str, phase: Phase) -> tuple[float, ...]:
        """Of guidance, in rising order."""
        return tuple(sorted(self.rows[name].strengths or phase.strengths))

    def stops(self, name: str, phase: Phase) -> tuple[int, ...]:
        """Compute after which a row's networks are looked at, in rising order.

        ValueError if its guide is none of its network's stops, or the last.
        """
        stops = tuple(sorted(self.rows[self.network(name)].stops or phase.stops))
        guide = self.rows[name].guide
        if guide and guide not in stops[:-1]:
            raise ValueError(
                f"rows.{name}.guide ({guide}) is no earlier stop of the network, which has "
                f"{shorten(stops)}. Choose one before the last."
            )
        return tuple(stop for stop in stops if stop > guide)

    def config(self, name: str, root: str) -> Config:
        """The configuration of a row on the data below ``root``; ValueError names the row."""
        row, trained = self.rows[name], self.rows[self.network(name)]
        options = self.options | trained.options | row.options
        try:
            backbone = str(options.get("backbone", ""))
            base = find_preset(self.dataset, trained.preset, root, backbone)
            config = with_options(base, options)
        except ValueError as error:
            raise ValueError(f"rows.{name}: {error}") from None
        if config.loss.distils:
            raise ValueError(
                f"rows.{name}: loss.tcfg_target (teacher) goes on from a trained network, and "
                "a comparison trains each from random weights. Take it out; what a second "
                "stage gives, the evaluate command says of its run."
            )
        return config


def may_use(option: str) -> bool:
    """Whether a row may give an option a value."""
    return option == "eval.guidance_mode" or may_hold(option)


def read_protocol(where: str) -> Protocol:
    """A shipped protocol by its name, or a YAML file; ValueError says what is wrong with it."""
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}
    file = shipped.get(where) or Path(where).expanduser()
    try:
        content = parse_yaml(file.read_bytes(), "it")
        found: Protocol = structure(Protocol, content, "")
    except OSError as error:
        raise ValueError(
            f"protocol ({where}) is neither a file ({error}) nor one of those that come with "
            f"the project: {', '.join(shipped)}."
        ) from None
    except ValueError as error:
        raise ValueError(f"protocol ({where}): {clip(error, 500)}") from None
    return found


def images_at(stop: int, cost: float, batch_size: int) -> int:
    """Training images of a method after so much compute, in whole batches; ValueError for 0."""
    images = int(stop / cost) // batch_size * batch_size
    if not images:
        raise ValueError(
            f"stops ({stop}) is less than a step of {batch_size} images at {cost:.2f} times "
            "the control's cost. Give a larger one."
        )
    return images


def with_rows(phase: Phase, rows: tuple[str, ...], seeds: tuple[int, ...]) -> Phase:
    """A phase with what was typed instead of its rows and seeds; () leaves them."""
    return replace(phase, rows=rows or phase.rows, seeds=seeds or phase.seeds)


def digest(*parts: Any) -> str:
    """Twelve hex digits of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
