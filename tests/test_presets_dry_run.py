"""Every row of the tables, as a user tries it: the command line, a data set of its kind."""

import numpy as np
import pytest
from sampling_tools import make_run
from test_presets import CLASSES, SIZES

from cbdm_scale.config.presets import ORIGINS, PRESETS
from cbdm_scale.config.run_options import resolve
from cbdm_scale.runs.launch import describe, prepare_data
from cbdm_scale.train import main, parse
from data_prep.source import Source, Split
from data_prep.writing.shards import write_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All data sets of the tables, two grey images a class."""
    root = tmp_path_factory.mktemp("sets")
    for name, classes in CLASSES.items():
        size, channels = SIZES.get(name, 32), 1 if name == "digits_lt" else 3
        labels = np.repeat(np.arange(classes), 2)
        pixels = np.zeros((len(labels), size, size, channels), np.uint8)
        split = Split.of_arrays(pixels, labels, "grey")
        source = Source(
            name=name,
            class_names=tuple(map(str, range(classes))),
            image_size=size,
            channels=channels,
            splits={"train": split, "eval": split},
            made="for a test",
            mirrors=True,
        )
        (root / name).mkdir()
        write_dataset(
            source, root / name, samples_per_shard=1000, seed=0, log=lambda line: None
        )
    return str(root)


def dry_run(row, root, tmp_path, capsys, *more):
    """What the command says of a row."""
    words = ["--dataset", row[0], "--preset", row[1], "--data.root", root, "--dry-run"]
    status = main([*words, "--cluster.storage", str(tmp_path), *more])
    out, err = capsys.readouterr()
    return status, out + err


@pytest.mark.parametrize("row", [row for row in PRESETS if row not in ORIGINS])
def test_every_row_can_be_trained_on_its_data(row, root, tmp_path):
    words = ["--dataset", row[0], "--preset", row[1], "--data.root", root]
    config = resolve(parse(words).config)
    numbers = describe(config, prepare_data(config, write=False))
    assert config.preset == row[1] and numbers["classes"] == CLASSES[row[0]]
    assert numbers["steps"] > 0 and numbers["parameters"] > 0


@pytest.mark.parametrize("row", ORIGINS)
def test_every_row_that_fine_tunes_dry_runs_from_a_network_and_not_without(
    row, root, tmp_path, capsys
):
    status, said = dry_run(row, root, tmp_path, capsys)
    assert status == 1 and f"preset ({row[1]}) fine-tunes, and init_from is empty" in said
    assert f"run of --dataset {ORIGINS[row]} --preset ddpm" in said

    trained = make_run(tmp_path / "trained", root, row="ddpm", dataset=ORIGINS[row])
    status, said = dry_run(row, root, tmp_path, capsys, "--init-from", trained)
    assert status == 0, said
    power = 0.0 if row[1] == "tuned_bal" else 1.0
    assert f"loss.label_power = {power}\n" in said, "the row's, not fine-tuning's default"
    assert "mapped   " in said and "loss.label_power" not in said.partition("\n\n")[2]


def test_a_row_of_table_2_decides_how_other_labels_are_drawn_and_an_option_over_it(
    root, tmp_path, capsys
):
    trained = make_run(tmp_path / "trained", root, row="ddpm", dataset="cifar100")
    for row, more, power in (
        ("cbdm_sqr", (), 0.5),
        ("cbdm_bal", ("--loss.label-power", "0.25"), 0.25),
        ("cbdm", (), 1.0),  # the default for other data
    ):
        _, said = dry_run(
            ("cifar100_lt", row), root, tmp_path, capsys, "--init-from", trained, *more
        )
        assert f"loss.label_power = {power}\n" in said
