import pytest

from data_prep.readers.names import own_name

KNOWN = ("cifar10", "imagenet_lt")


def name(given=None, source=None, long_tail=False):
    return own_name(given, source, "synthetic", long_tail=long_tail, known=KNOWN)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/data/My Birds", "my_birds"),
        ("/data/Vögel-2026.v2/", "vogel_2026_v2"),
        ("/data/flowers/train", "flowers"),
        ("lists/flowers.CSV", "flowers"),
        ("/data/" + "long" * 40, "long" * 15),
        (None, "synthetic"),
    ],
)
def test_a_source_gives_its_name(source, expected):
    assert name(source=source) == expected


def test_the_folder_where_one_is_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "Cats").mkdir()
    monkeypatch.chdir(tmp_path / "Cats")
    assert name(source=".") == "cats"


def test_a_long_tail_shows_in_the_name():
    assert name(source="/data/birds", long_tail=True) == "birds_lt"
    assert name(source="/data/birds-lt", long_tail=True) == "birds_lt"
    assert name("birds", "/data/birds", long_tail=True) == "birds"


@pytest.mark.parametrize(
    ("source", "long_tail"), [("/data/CIFAR10", False), ("/data/imagenet", True)]
)
def test_names_of_published_data_sets_must_be_asked_for(source, long_tail):
    with pytest.raises(ValueError, match=r"published data set.*insist with --name (cif|ima)"):
        name(source=source, long_tail=long_tail)
    assert name("cifar10", "/x") == "cifar10"


@pytest.mark.parametrize("given", ["", "a b", "../x", "Ü", "_x", "x/y", "x" * 65, "Birds"])
def test_names_that_are_no_names_are_refused(given):
    with pytest.raises(ValueError, match=r"--name \(.*must be 1 to 64 of"):
        name(given, "/data/x")


def test_a_source_without_a_letter_asks_for_a_name():
    with pytest.raises(ValueError, match=r"--source \(/data/日本\) gives no name. Add --name"):
        name(source="/data/日本")
