"""Features are extracted once, whoever does it, and never of other images than asked for."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from extractor_tools import TinyRecipe, write_npz
from wait_tools import DeviceReads

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.cluster.pool import run_jobs
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.extract import Extraction, extract, feature_key, run_here
from cbdm_scale.metrics.features import ClassifierRecipe
from cbdm_scale.metrics.npz import NpzImages
from cbdm_scale.metrics.sources import Subset


def pool(images, seed=0):
    extractor = TinyRecipe(seed).load("cpu")
    return extractor(torch.from_numpy(images.read(range(images.count)))).pool


def workers(number):
    """Jobs in the order in which so many workers might finish them."""

    def run(work, chunks):
        does = [work(torch.device("cpu")) for _ in range(number)]
        order = sorted(range(len(chunks)), key=lambda i: (i % number, -i))
        for i in order:
            yield chunks[i], does[i % number](chunks[i])

    return run


def never(work, chunks):
    raise AssertionError(f"{len(chunks)} chunks were computed again")
    yield


@pytest.fixture
def images(tmp_path):
    return NpzImages(write_npz(tmp_path / "images.npz"))


def test_features_and_labels_are_those_of_the_images(images, tmp_path):
    found = extract(images, TinyRecipe(), tmp_path / "kept", chunk_size=5)
    torch.testing.assert_close(found.pool, pool(images))
    torch.testing.assert_close(found.logits, pool(images)[:, :2])
    assert found.imagenet is None
    assert found.labels.tolist() == [i % 3 for i in range(23)]


def files(folder):
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir())}


def test_any_number_of_workers_gives_the_same_bytes(images, tmp_path):
    runs = [run_here, workers(2), workers(7)]
    for i, run in enumerate(runs):
        extract(images, TinyRecipe(), tmp_path / str(i), run, chunk_size=4)
    key = feature_key(images, TinyRecipe())
    one, two, seven = (files(tmp_path / str(i) / key) for i in range(3))
    assert one == two == seven


def test_a_second_run_computes_nothing(images, tmp_path):
    first = extract(images, TinyRecipe(), tmp_path / "kept")
    again = extract(NpzImages(images.path), TinyRecipe(), tmp_path / "kept", never)
    assert torch.equal(first.pool, again.pool)


def one_pixel(images, labels):
    images[11, 3, 3, 1] ^= 1


def one_label(images, labels):
    labels[11] = 2 - labels[11]


@pytest.mark.parametrize("change", [one_pixel, one_label])
def test_another_image_or_label_is_another_key(change, images, tmp_path):
    write_npz(tmp_path / "other.npz", change=change)
    other = NpzImages(tmp_path / "other.npz")
    assert feature_key(other, TinyRecipe()) != feature_key(images, TinyRecipe())
    kept = tmp_path / "kept"
    extract(images, TinyRecipe(), kept)
    torch.testing.assert_close(extract(other, TinyRecipe(), kept).pool, pool(other))


def test_weights_number_and_choice_are_part_of_the_key(images):
    keys = {
        feature_key(images, TinyRecipe(0)),
        feature_key(images, TinyRecipe(1)),
        feature_key(Subset(images, tuple(range(22))), TinyRecipe(0)),
        feature_key(Subset(images, tuple(range(1, 23))), TinyRecipe(0)),
    }
    assert len(keys) == 4


def test_an_interrupted_extraction_goes_on(images, tmp_path):
    def dies(work, chunks):
        for i, result in enumerate(run_here(work, chunks)):
            if i == 2:
                raise KeyboardInterrupt
            yield result

    seen = []

    def rest(work, chunks):
        seen.extend(chunks)
        return run_here(work, chunks)

    with pytest.raises(KeyboardInterrupt):
        extract(images, TinyRecipe(), tmp_path / "kept", dies, chunk_size=5)
    found = extract(images, TinyRecipe(), tmp_path / "kept", rest, chunk_size=5)
    assert seen == [(10, 15), (15, 20), (20, 23)]
    torch.testing.assert_close(found.pool, pool(images))


@pytest.mark.parametrize("file", ["pool.npy", "about.json", "labels.npy"])
def test_a_damaged_cache_is_made_again(file, images, tmp_path):
    extract(images, TinyRecipe(), tmp_path / "kept")
    home = tmp_path / "kept" / feature_key(images, TinyRecipe())
    damaged = home / file
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = extract(images, TinyRecipe(), tmp_path / "kept")
    torch.testing.assert_close(again.pool, pool(images))
    assert json.loads((home / "about.json").read_text())["count"] == 23


def test_a_piece_is_computed_from_its_chunk_alone(images):
    work = Extraction(images, TinyRecipe())(torch.device("cpu"))
    np.testing.assert_allclose(work((3, 9))["pool"], pool(images).numpy()[3:9], rtol=1e-5)


def test_all_images_of_a_job_are_read_before_a_feature_is_waited_for(tmp_path):
    """So that the next ones are read and sent while a GPU is at those before."""
    reads, read = DeviceReads([]), []

    class OfAGpu(TinyRecipe):
        def load(self, device):
            def extractor(x):
                found = TinyRecipe().load(device)(x)
                reads.mark([found.pool])
                return found

            return extractor

    class Watched(NpzImages):
        def read(self, numbers):
            assert not reads.found
            read.append(len(numbers))
            return super().read(numbers)

    images = Watched(write_npz(tmp_path / "some.npz", n=150))
    with reads.counted():
        Extraction(images, OfAGpu())(torch.device("cpu"))((0, 150))
    assert read == [64, 64, 22] and len({*reads.found}) == 1


def test_a_gpu_that_is_too_small_for_features_is_told_what_does_without(images):
    class Full(TinyRecipe):
        def load(self, device):
            def extractor(x):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")

            return extractor

    words = "features of 64 images at once: .* Tried Try --cluster.device cpu"
    with pytest.raises(ValueError, match=words):
        list(run_here(Extraction(images, Full(0)), [(0, 2)]))


def by_pool(images, folder, workers):
    """With an extractor that Ray's workers can import."""
    net = SmallClassifier(image_channels=3, image_size=8, num_classes=3)
    torch.manual_seed(0)
    torch.nn.init.normal_(net.penultimate.weight)
    recipe = ClassifierRecipe(save_classifier(net), "tiny")
    run = partial(
        run_jobs,
        config=PoolConfig(workers=workers, cpus_per_worker=0.5, device="cpu"),
        log=lambda s: None,
    )
    extract(images, recipe, folder / "here", chunk_size=5)
    extract(images, recipe, folder, run, chunk_size=5)
    key = feature_key(images, recipe)
    return files(folder / "here" / key), files(folder / key)


def test_a_pool_without_workers_gives_the_same_bytes(images, tmp_path):
    here, there = by_pool(images, tmp_path, workers=0)
    assert here == there


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rays_workers_give_the_same_bytes(work, images, tmp_path):
    """The default suite holds it in two parts: here the bytes by any number of workers and by
    the pool in one process, in test_pool.py that Ray's workers do every job of the pool once.
    """
    import ray

    try:
        here, there = by_pool(images, tmp_path, workers=2)
    finally:
        ray.shutdown()  # this process alone leaves the cluster
    assert here == there


def test_progress_counts_images(images, tmp_path):
    said = []
    extract(
        images,
        TinyRecipe(),
        tmp_path,
        chunk_size=10,
        reached=lambda *counts: said.append(counts),
    )
    assert said == [(10, 0), (20, 0), (23, 0)]


def test_equal_pixels_have_equal_hashes_and_others_do_not(tmp_path):
    def twins(images, labels):
        images[7] = images[2]

    found = extract(
        NpzImages(write_npz(tmp_path / "a.npz", change=twins)),
        TinyRecipe(),
        tmp_path,
        chunk_size=5,
    )
    same = found.hashes[:, None] == found.hashes
    expected = torch.eye(23, dtype=torch.bool)
    expected[2, 7] = expected[7, 2] = True
    assert found.hashes.dtype == torch.int64 and torch.equal(same, expected)


def test_jobs_for_gpus_are_larger_and_change_no_bit_on_a_cpu(tmp_path):
    """A CPU takes as many images at once as ever, whatever the job."""
    images = NpzImages(write_npz(tmp_path / "some.npz", n=150))
    jobs, asked = [], []

    def run(work, chunks):
        jobs.append(list(chunks))
        return run_here(work, chunks)

    extract(images, TinyRecipe(), tmp_path / "cpu", run)
    extract(images, TinyRecipe(), tmp_path / "gpu", run, on_gpus=lambda: True)
    assert jobs == [[(0, 64), (64, 128), (128, 150)], [(0, 150)]]
    key = feature_key(images, TinyRecipe())
    assert files(tmp_path / "cpu" / key) == files(tmp_path / "gpu" / key)
    extract(images, TinyRecipe(), tmp_path / "gpu", run, on_gpus=lambda: asked.append(1))
    assert not asked, "what is there already starts no cluster"
