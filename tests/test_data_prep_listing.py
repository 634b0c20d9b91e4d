"""What is missing is named in a file, all of it, and is an error unless it was allowed."""

import pytest

from data_prep.options import Options
from data_prep.readers.listing import allow_missing, missing_file


def options(folder, allowed=None):
    return Options(out=str(folder / "out"), source="SOURCE", allow_missing=allowed)


def test_all_missing_names_stand_in_a_file_beside_the_data_set(tmp_path):
    names = [f"train/{i}.jpg" for i in range(300)] + ["猫.jpg", "train/7.jpg"]
    with pytest.raises(ValueError) as caught:
        allow_missing(names, "birds", options(tmp_path))
    file = tmp_path / "out" / "birds.missing.txt"
    assert str(caught.value) == (
        "--source (SOURCE) lacks 301 images that the lists name, --allow-missing is 0. "
        f"{file} names them all, the first is train/0.jpg. Add them, or go on without them by "
        "--allow-missing 301."
    )
    assert file.read_text(encoding="utf-8").splitlines() == names[:-1]


def test_what_is_left_of_the_allowance_is_for_bad_images(tmp_path):
    assert allow_missing(["a", "b", "a"], "x", options(tmp_path, 5)) == 3
    assert allow_missing(["a", "b"], "x", options(tmp_path, 2)) == 0
    assert (tmp_path / "out/x.missing.txt").read_text() == "a\nb\n"
    assert allow_missing([], "x", options(tmp_path, 4)) == 4
    assert allow_missing([], "x", options(tmp_path)) == 0
    with pytest.raises(ValueError, match="lacks 2 images .* --allow-missing is 1"):
        allow_missing(["a", "b"], "x", options(tmp_path, 1))


def test_the_file_goes_when_nothing_is_missing_any_more(tmp_path):
    allow_missing(["a"], "x", options(tmp_path, 1))
    allow_missing([], "x", options(tmp_path))
    assert not (tmp_path / "out/x.missing.txt").exists()


def test_a_negative_allowance_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="--allow-missing must be at least 0, got -1"):
        options(tmp_path, -1)


def test_a_store_has_its_file_beside_the_data_set_too():
    folder, file = missing_file("s3://bucket/shards", "x")
    assert folder.path(file) == "s3://bucket/shards/x.missing.txt"
