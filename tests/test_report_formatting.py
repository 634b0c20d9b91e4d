import pytest

from cbdm_scale.evaluation.report.formatting import (
    apart,
    interval,
    number,
    percent,
    percent_interval,
    short_name,
    with_interval,
)
from cbdm_scale.metrics.intervals import Interval


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (4.519, "4.52"),
        (0.03124, "0.0312"),
        (1280.4, "1,280"),
        (-0.5, "-0.500"),
        (-1e-9, "0"),
        (99.96, "100.0"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(x, text):
    assert number(x) == text


def test_an_interval_has_the_digits_that_its_width_allows():
    assert with_interval(Interval(4.5231, 4.1, 4.9444)) == "4.5 [4.1, 4.9]"
    assert interval(Interval(123.4, 100.2, 150.6)) == ("123", "100 to 151")
    assert interval(Interval(0.00312, 0.0028, 0.0035)) == ("0.0031", "0.0028 to 0.0035")
    assert interval(Interval(2.0)) == ("2.00", "") and with_interval(Interval(2.0)) == "2.00"
    assert interval(Interval(2.0, 2.0, 2.0)) == ("2.00", "2.00 to 2.00")


def test_all_and_nothing_are_said_only_where_they_are_exact():
    assert percent(1.0) == "100 %" and percent(0.0) == "0 %"
    assert percent(0.99999) == "> 99.9 %" and percent(0.00001) == "< 0.1 %"
    assert percent(0.82) == "82 %" and percent(0.021) == "2.1 %"
    assert percent_interval(Interval(0.82, 0.8, 0.84)) == ("82 %", "80 to 84 %")


def test_touching_intervals_overlap():
    assert not apart(Interval(1, 0, 2), Interval(3, 2, 4))
    assert apart(Interval(1, 0, 2), Interval(3, 2.1, 4))


def test_a_long_name_is_cut():
    assert short_name("a<b") == "a<b"
    assert short_name("x" * 300) == "x" * 79 + "…"
