"""A set of the sample command as a source of features."""

import numpy as np
import pytest
from sampling_tools import only_set

from cbdm_scale.generation.plan import SetPlan
from cbdm_scale.generation.store import SetImages, open_set
from cbdm_scale.metrics.npz import NpzImages
from cbdm_scale.sample import main


@pytest.fixture
def made(run):
    assert main(["--run", run, "--format", "npz", "--cluster.workers", "0"]) == 0
    return only_set(f"{run}/samples")


def test_images_are_read_by_number_in_any_order(made):
    images = open_set(made.url)
    with np.load(made.local_path("images-30.npz")) as file:
        pixels, labels = file["arr_0"].transpose(0, 3, 1, 2), file["arr_1"]
    numbers = [29, 0, 7, 8, 25, 8]
    assert images.count == 30 and np.array_equal(images.labels, labels)
    assert np.array_equal(images.read(numbers), pixels[numbers])
    assert np.array_equal(images.read(range(30)), pixels)


def test_a_plan_comes_back_from_its_file(made):
    plan = open_set(made.url).store.plan
    assert plan.name == made.url.rpartition("/")[2]
    assert SetPlan.from_dict(plan.to_dict()) == plan


def test_a_set_and_its_npz_name_the_classes_also_one_of_an_older_version(made, run):
    names, file = tuple("0123456789"), made.local_path("images-30.npz")
    assert (
        open_set(made.url).store.plan.class_names == NpzImages(str(file)).class_names == names
    )
    older = made.read_json("set.json")
    assert older.pop("class_names") == list(names)
    made.write_json("set.json", older)
    assert open_set(made.url).store.plan.class_names == ()
    assert main(["--run", run, "--format", "npz", "--cluster.workers", "0"]) == 0
    assert only_set(f"{run}/samples").read_json("set.json")["class_names"] == list(names)


def test_the_fingerprint_changes_with_a_pixel_and_with_the_number(made):
    images = open_set(made.url)
    before = images.fingerprint
    assert open_set(made.url).fingerprint == before
    assert open_set(made.url, 24).fingerprint != before
    chunk = images.chunks[1]
    pixels = images.store.read(chunk)[0].copy()
    pixels[0, 0, 0, 0] ^= 1
    images.store.write(chunk, pixels)
    assert open_set(made.url).fingerprint != before


def test_of_two_last_chunks_the_larger_counts(made, run):
    words = ["--run", run, "--num-images", "40", "--cluster.workers", "0"]
    assert main(words) == 0
    assert open_set(made.url).count == 40
    assert open_set(made.url, 30).count == 30


def test_a_set_that_is_not_finished_says_how_far_it_is(made):
    made.remove("chunks/000000008-000000016.safetensors")
    assert open_set(made.url).count == 8
    with pytest.raises(ValueError, match="holds 8 finished images, not 30"):
        open_set(made.url, 30)
    made.remove("chunks")
    with pytest.raises(ValueError, match="holds 0 finished images, not any"):
        open_set(made.url)


def test_a_damaged_plan_is_said(made):
    made.write_json("set.json", {"format_version": 9})
    with pytest.raises(ValueError, match="set.json is damaged or of another version"):
        open_set(made.url)


def test_the_chunk_in_memory_stays_here_when_images_travel(made):
    images = open_set(made.url)
    images.read([3])
    assert isinstance(images, SetImages) and images.__getstate__()["_last"] is None
