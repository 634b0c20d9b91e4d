"""Bounds in the types of a dataclass's fields, and their check."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from cbdm_scale.storage.checks import (
    Length,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    UnitFloat,
    as_typed,
    bounds_in_words,
    check_fields,
    check_value,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    size: PositiveInt = 8
    workers: NonNegativeInt | None = None
    rate: PositiveFloat = 2e-4
    share: UnitFloat = 0.5
    dropout: Annotated[float, Range(ge=0, lt=1, hint="0.1 is usual.")] = 0.0
    shift: Annotated[float, Range()] = -1.2
    omegas: Annotated[tuple[NonNegativeFloat, ...], Length()] = (0.5, 1.0)
    levels: Annotated[tuple[PositiveInt, ...], Length(le=2)] = (1, 2)
    seeds: tuple[int, ...] = ()
    device: Literal["auto", "cpu", "gpu"] = "auto"
    name: str = ""

    def __post_init__(self):
        check_fields(self, "part.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "part.size must be at least 1, got 0. Try --part.size 8."),
        ({"size": 1.5}, "part.size must be a whole number, got 1.5. Try --part.size 8."),
        ({"size": "many"}, "part.size must be a whole number, got 'many'. Try --part.size 8."),
        ({"workers": -1}, "part.workers must be at least 0, got -1."),
        ({"rate": 0}, "part.rate must be above 0, got 0. Try --part.rate 0.0002."),
        ({"rate": math.inf}, "part.rate must be above 0, got inf. Try --part.rate 0.0002."),
        ({"rate": "fast"}, "part.rate must be a number, got 'fast'. Try --part.rate 0.0002."),
        ({"share": 1.5}, "part.share must be from 0 to 1, got 1.5. Try --part.share 0.5."),
        ({"share": math.nan}, "part.share must be from 0 to 1, got nan. Try --part.share 0.5."),
        (
            {"dropout": 1},
            "part.dropout must be at least 0 and below 1, got 1. 0.1 is usual.",
        ),
        ({"shift": -math.inf}, "part.shift must be finite, got -inf. Try --part.shift -1.2."),
        (
            {"omegas": ()},
            "part.omegas must be one value or more, got none. Try --part.omegas 0.5 1.",
        ),
        (
            {"omegas": (1, -1)},
            "part.omegas must be at least 0 each, got 1 -1. Try --part.omegas 0.5 1.",
        ),
        (
            {"levels": (1, 1, 1)},
            "part.levels must be 1 to 2 values, got 1 1 1. Try --part.levels 1 2.",
        ),
        ({"seeds": (1, 0.5)}, "part.seeds must be a whole number each, got 1 0.5."),
        (
            {"device": "tpu"},
            "part.device must be auto, cpu or gpu, got 'tpu'. Try --part.device auto.",
        ),
    ],
)
def test_a_value_outside_its_type_is_named_with_the_way_out(options, message):
    with pytest.raises(ValueError) as caught:
        Part(**options)
    assert str(caught.value) == message


def test_bounds_themselves_are_inside_where_they_are_allowed():
    Part(size=1, workers=0, share=0, dropout=0, omegas=(0,), levels=(1,), device="gpu")
    Part(share=1, levels=(1, 1), rate=5e-324, size=10**400)


def test_a_value_alone_is_checked_as_a_field_is():
    check_value("width", 0.1, UnitFloat)
    with pytest.raises(ValueError, match=r"^width must be from 0 to 1, got 2$|got 2\.$"):
        check_value("width", 2, UnitFloat)


def test_help_can_show_the_bounds():
    assert bounds_in_words(PositiveFloat) == "above 0"
    assert bounds_in_words(NonNegativeInt | None) == "at least 0"
    assert bounds_in_words(Annotated[tuple[UnitFloat, ...], Length()]) == "from 0 to 1"
    assert bounds_in_words(Annotated[int, Range(gt=0, le=1_000_000)]) == (
        "above 0 and at most 1,000,000"
    )
    assert bounds_in_words(str) == bounds_in_words(tuple[str, ...]) == ""


def test_values_are_written_as_they_are_typed():
    assert as_typed((0.5, 1.0, 2e-4)) == "0.5 1 0.0002"
    assert as_typed(0.123456789) == "0.123456789" and as_typed("a") == "a"
