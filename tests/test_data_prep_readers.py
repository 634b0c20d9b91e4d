"""Every data set of the help is read, and an option that means nothing to it is an error."""

from pathlib import Path

import pytest
from test_data_prep_cifar import CIFAR10, CIFAR100, make_folder

from data_prep.options import READER_OPTIONS, Options
from data_prep.readers import DATASETS, read_source


def complete(name: str, folder: Path) -> Options:
    """Options with which a small data set of this name is read, its files made on the way."""
    if name == "digits-lt":
        return Options(out="")
    make_folder(folder, CIFAR100 if "100" in name else CIFAR10)
    imbalance = 0.1 if name.endswith("-lt") else None
    return Options(out="", source=str(folder), imbalance=imbalance, allow_changed=True)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_of_the_help_has_a_reader(tmp_path, name):
    source = read_source(name, complete(name, tmp_path))
    assert source.name == name.replace("-", "_")
    assert {"train", "eval"} <= set(source.splits)


def given(option):
    word = {"resolution": 8, "imbalance": 0.5, "allow_missing": 3}.get(option, "x")
    return True if option in ("bounding_box", "clean", "allow_changed") else word


@pytest.mark.parametrize("name", DATASETS)
def test_an_option_that_means_nothing_is_named_with_those_it_is_for(name):
    entry = DATASETS[name]
    needed = {option: "x" for option in entry.needs}
    for option, word in READER_OPTIONS.items():
        if option in (*entry.needs, *entry.takes):
            continue
        users = [n for n, d in DATASETS.items() if option in (*d.needs, *d.takes)]
        with pytest.raises(ValueError, match=f"{word}.* means nothing for {name}") as caught:
            read_source(name, Options(out="", **(needed | {option: given(option)})))
        assert str(caught.value).endswith(f"it is for {', '.join(users)}.")


@pytest.mark.parametrize("name", DATASETS)
def test_an_option_that_is_needed_says_what_to_give(name):
    for option, what in DATASETS[name].needs.items():
        others = {o: "x" for o in DATASETS[name].needs if o != option}
        with pytest.raises(ValueError, match=f"{READER_OPTIONS[option]} is missing: {what}"):
            read_source(name, Options(out="", **others))


def test_every_option_of_the_readers_is_used_by_one():
    used = {o for d in DATASETS.values() for o in (*d.needs, *d.takes)}
    assert used == set(READER_OPTIONS)
