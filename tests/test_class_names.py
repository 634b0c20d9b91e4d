"""Labels follow names, however a number is spelt and whatever order the names come in."""

import unicodedata

import pytest

from cbdm_scale.data.class_names import (
    class_folders,
    class_order,
    image_labels,
    labels_of_names,
)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "2", "0"], ("0", "2", "10")),
        ([10, "2", 0, "10"], ("0", "2", "10")),
        (["011", "7", "07"], ("7", "011")),
        (["b", "10", "C", "a", "9"], ("9", "10", "C", "a", "b")),
        ([unicodedata.normalize("NFD", "é"), "é"], ("é",)),
    ],
)
def test_numbers_are_in_the_order_of_numbers_and_text_follows(names, order):
    assert class_order(names) == class_order(names[::-1]) == order


def test_a_name_has_the_label_of_its_class_in_any_spelling():
    names = ("2", "10", "é")
    found = [10, "10", "010", 2, unicodedata.normalize("NFD", "é"), "e", 0]
    assert labels_of_names(found, names) == [1, 1, 1, 0, 2, None, None]


def test_folders_of_classes_sort_by_number_and_carry_names():
    assert class_folders(3) == ["0", "1", "2"]
    assert class_folders(11)[1] == "01"
    assert class_folders(2, ["aquarium fish", "1"]) == ["0-aquarium_fish", "1"]


@pytest.mark.parametrize(
    ("found", "names", "labels"),
    [
        (["dog", "cat"], ("cat", "dog"), [1, 0]),
        (["0-cat_1", "1-dog"], ("cat 1", "dog"), [0, 1]),
        (["1", "0"], ("cat", "dog"), [1, 0]),
        (["1", "2"], ("2", "1"), [1, 0]),
        (["01", "10"], tuple(map(str, range(11))), [1, 10]),
        (["0-1", "1-2", "2-10"], ("1", "2", "10"), [0, 1, 2]),
    ],
)
def test_images_have_the_labels_of_the_names_they_come_with(found, names, labels):
    assert image_labels(found, names, "DIR").tolist() == labels


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["cat", "fox"], ("cat", "dog")),
        (["cat", "1-fox"], ("cat", "dog")),
        (["0", "fox"], ("cat", "dog")),
        (["1", "fox"], ("1", "2")),
    ],
)
def test_a_class_that_is_none_is_named(found, names):
    with pytest.raises(ValueError, match=rf"DIR has classes .* not: .*fox. .* are {names[0]}"):
        image_labels(found, names, "DIR")
