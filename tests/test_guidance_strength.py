import math
from dataclasses import replace

import pytest
from gloo_tools import tiny_config

from cbdm_scale.data.groups import GROUPS, class_groups
from cbdm_scale.data.guidance_strength import (
    as_key,
    as_name,
    as_text,
    class_strengths,
    in_order,
    parse_strength,
    stated_numbers,
)
from cbdm_scale.runs.launch import prepare_data

COUNTS = (174, 104, 62, 37, 22, 13, 8, 4, 2, 2)  # the long-tailed digits


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("0.50", 0.5),
        (1, 1.0),
        ("few=1,many=.5,medium=5e-1", "many=0.5,medium=0.5,few=1"),
        (" few=0 ", "few=0"),
        ("count=1.0:-.3", "count=1:-0.3"),
    ],
)
def test_a_strength_has_one_spelling(typed, expected):
    found = parse_strength("guidance", typed)
    assert found == expected and type(found) is type(expected)
    assert parse_strength("guidance", found) == found


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (-1.0, r"guidance must be at least 0, got -1"),
        ("nan", "guidance must be"),
        ("inf", "guidance must be"),
        ("much", r"guidance \(much\) is no strength, each at least 0: a number, many=0.5,"),
        ("", "is no strength"),
        ("many=0.5 few=1", r"\(many=0.5 few=1\) is no strength"),
        ("many=0.5,many=1", "is no strength"),
        ("many=-1,few=1", "is no strength, each at least 0"),
        ("many=0.5,tail=1", "is no strength"),
        ("many=", "is no strength"),
        ("many=0.5,", "is no strength"),
        ("few=inf", "is no strength"),
        ("count=1", "is no strength"),
        ("count=1:2:3", "is no strength"),
        ("count=1:nan", "is no strength"),
        ("count=1:2,few=1", "is no strength"),
    ],
)
def test_what_is_no_strength_is_named(typed, message):
    with pytest.raises(ValueError, match=message):
        parse_strength("guidance", typed)


def test_a_number_is_every_classes():
    assert class_strengths("guidance", 0.8, class_groups(COUNTS), COUNTS) == (0.8,) * 10


def test_by_group_each_class_has_its_groups():
    found = class_strengths("guidance", "many=0.5,medium=0.25,few=1", GROUPS, (200, 50, 3))
    assert found == (0.5, 0.25, 1.0)
    turned = class_strengths("guidance", "many=0.5,few=1", ("few", "many"), (3, 200))
    assert turned == (1.0, 0.5)


def test_by_count_is_a_line_in_the_logarithm_held_at_zero():
    found = class_strengths("guidance", "count=1:-0.5", ("many",) * 4, (1, 10, 100, 1000))
    assert found == (1.0, 0.5, 0.0, 0.0)
    found = class_strengths("guidance", "count=0.2:0.3", class_groups(COUNTS), COUNTS)
    assert found == pytest.approx([0.2 + 0.3 * math.log(n, 10) for n in COUNTS], abs=1e-6)


@pytest.mark.parametrize(
    ("strength", "groups", "message"),
    [
        (
            "many=0.5,few=1",
            GROUPS,
            r"guidance \(many=0.5,few=1\) must name the groups of the data set, which are "
            "many, medium, few. Try many=0.5,medium=1,few=1.",
        ),
        ("many=0.5,few=1", ("many",) * 3, "which are many. Try many=0.5."),
        ("few=2", ("medium",) * 3, "which are medium. Try medium=2."),
    ],
)
def test_groups_that_the_data_set_lacks_are_refused_and_all_it_has_are_needed(
    strength, groups, message
):
    with pytest.raises(ValueError, match=message):
        class_strengths("guidance", strength, groups, (5, 5, 5))


def test_a_run_is_told_before_it_starts_what_does_not_fit(digits_root, tmp_path):
    """Where the counts are known: the data set's groups, and what TCFG's network learns."""
    config = tiny_config(digits_root, str(tmp_path), "run", steps=1, dropout=0.0)

    def prepared(omega, mode="cfg"):
        evaluated = replace(config.eval, guidance=(0.5, omega), guidance_mode=mode)
        loss = replace(config.loss, tcfg=True, omega_max=1.0)
        return prepare_data(replace(config, loss=loss, eval=evaluated))

    prepared("many=0.5,medium=0.5,few=1", "tcfg")
    prepared("count=0.2:2")
    with pytest.raises(ValueError, match=r"eval.guidance \(few=1\) must name the groups"):
        prepared("few=1")
    with pytest.raises(ValueError, match="knows strengths up to 1 .*got 4.6"):
        prepared("count=0.2:2", "tcfg")


def test_what_is_known_without_the_data_set():
    assert stated_numbers(0.8) == (0.8,)
    assert stated_numbers("many=0.5,few=1") == (0.5, 1.0)
    assert stated_numbers("count=1:-0.3") == ()


def test_names_keys_and_order():
    several = ["many=0.5,few=1", 2.0, "count=1:-0.3", 0.5]
    ordered = sorted(several, key=in_order)
    assert ordered == [0.5, 2.0, "count=1:-0.3", "many=0.5,few=1"]
    assert [as_text(s) for s in ordered] == ["0.5", "2", "count=1:-0.3", "many=0.5,few=1"]
    assert [as_name(s) for s in ordered] == ["0.5", "2", "count_1_-0.3", "many_0.5_few_1"]
    assert [as_key(s) for s in ordered] == ["0.5", "2.0", "count=1:-0.3", "many=0.5,few=1"]
    assert all(parse_strength("guidance", as_key(s)) == s for s in several)
