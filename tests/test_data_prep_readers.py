"""Every data set of the help is read, and an option that means nothing to it is an error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_tools import own_options
from process_tools import sent
from test_data_prep_celeba import make_celeba
from test_data_prep_cifar import CIFAR10, CIFAR100, make_folder
from test_data_prep_cub import make_cub
from test_data_prep_imagenet import make_imagenet

from cbdm_scale.config.presets import PRESETS
from cbdm_scale.data.manifest import PUBLISHED, prep_command, read_manifest
from cbdm_scale.storage.wording import prog_of
from data_prep.__main__ import PREPARE, main
from data_prep.options import READER_OPTIONS, Options
from data_prep.readers import DATASETS, read_source


def complete(name: str, folder: Path) -> Options:
    """Options with which a small data set of this name is read, its files made on the way."""
    options = Options(out=str(folder / "out"), source=str(folder))
    if DATASETS[name].is_own:
        return replace(own_options(name, folder), out=options.out)
    match name:
        case "digits-lt":
            return replace(options, source=None)
        case "imagenet-lt":
            make_imagenet(folder)
            return replace(options, train_list=str(folder / "list.txt"), resolution=16)
        case "cub200":
            make_cub(folder)
            return replace(options, resolution=16)
        case "celeba5":
            make_celeba(folder)
            return replace(options, resolution=16)
    make_folder(folder, CIFAR100 if "100" in name else CIFAR10)
    imbalance = 0.1 if name.endswith("-lt") else None
    return replace(options, imbalance=imbalance, allow_changed=True)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_of_the_help_has_a_reader(tmp_path, name):
    source = read_source(name, complete(name, tmp_path))
    assert source.name == name.replace("-", "_")
    assert {"train", "eval"} <= set(source.splits)
    for split in source.splits.values():
        assert len(split.labels) == len(split.keys) == len(set(split.keys)) > 0
        image = sent(split).image(0)
        assert image.shape == (source.image_size, source.image_size, source.channels)
        assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("imagenet-lt", ["--train-list", "list.txt"]),
        ("cub200", ["--bounding-box"]),
        ("celeba5", []),
    ],
)
def test_the_commands_write_shards_of_files(tmp_path, monkeypatch, name, extra):
    complete(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [name, "--source", ".", "--out", "shards", "--resolution", "16", *extra]
    assert main([*words, "--allow-missing", "2", "--no-classifier"]) == 0
    manifest = read_manifest("shards", name)
    assert (manifest.image_size, manifest.channels) == (16, 3)
    assert "16x16, centre crop as in ADM" in manifest.source


@pytest.mark.parametrize("resolution", ["0", "5000"])
@pytest.mark.parametrize("name", ["imagenet-lt", "cub200", "celeba5"])
def test_a_wrong_resolution_is_told_by_every_reader_of_files(tmp_path, name, resolution):
    options = complete(name, tmp_path)
    with pytest.raises(ValueError, match=rf"--resolution must be .* 4,096, got {resolution}"):
        read_source(name, replace(options, resolution=int(resolution)))


@pytest.mark.parametrize("name", sorted({dataset for dataset, _ in PRESETS}))
def test_the_command_that_training_prints_has_all_that_is_needed(name):
    words = prep_command("ROOT", name).removeprefix(prog_of("prepare")).split()
    arguments = PREPARE.read(words)
    entry = DATASETS[arguments.pop("dataset")]
    assert {option for option in READER_OPTIONS if arguments.get(option)} == set(entry.needs)


def given(option):
    numbers = {"resolution": 8, "channels": 1, "allow_missing": 3, "classes": 5}
    words = {"imbalance": 0.5, "long_tail": 0.5, "eval_per_class": 2, "profile": "step"}
    word = (numbers | words).get(option, "x")
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


def test_names_that_are_published_are_those_with_a_reader_of_their_own():
    assert {n.replace("-", "_") for n, d in DATASETS.items() if not d.is_own} == set(PUBLISHED)


def test_every_option_of_the_readers_is_used_by_one():
    used = {o for d in DATASETS.values() for o in (*d.needs, *d.takes)}
    assert used == set(READER_OPTIONS)
