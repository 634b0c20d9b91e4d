import hashlib

import pytest
import torch
from extractor_tools import load_extractor

from cbdm_scale.data.pixels import to_model_range
from cbdm_scale.metrics.classifier import SmallClassifier, save_classifier
from cbdm_scale.metrics.features import label_hits


@pytest.fixture
def folder(tmp_path):
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=4)
    (tmp_path / "classifier.safetensors").write_bytes(save_classifier(net))
    return tmp_path


def images(n=5):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_classifier_gives_features_and_logits(folder):
    extract = load_extractor("classifier", str(folder))
    features = extract(images())
    assert extract.dim == 64
    assert features.pool.shape == (5, 64) and features.pool.dtype == torch.float32
    assert features.logits is not None and features.logits.shape == (5, 4)
    assert not features.pool.requires_grad


def test_an_images_features_do_not_depend_on_its_batch(folder):
    extract = load_extractor("classifier", str(folder))
    together = extract(images()).pool
    alone = torch.cat([extract(x).pool for x in images().split(1)])
    torch.testing.assert_close(together, alone)


def test_the_logits_are_made_of_the_features(folder):
    extract = load_extractor("classifier", str(folder))
    features = extract(images())
    torch.testing.assert_close(features.logits, extract.net.logits(features.pool))


def test_the_fingerprint_is_that_of_the_weights(folder):
    first = load_extractor("classifier", str(folder)).fingerprint
    file = folder / "classifier.safetensors"
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=4)
    file.write_bytes(save_classifier(net))
    assert load_extractor("classifier", str(folder)).fingerprint != first


def test_the_logits_follow_the_names_of_the_classes(folder):
    net = SmallClassifier(image_channels=1, image_size=8, num_classes=4).eval()
    file = folder / "classifier.safetensors"
    file.write_bytes(save_classifier(net, ("cat", "dog", "2", "owl")))
    plain = load_extractor("classifier", str(folder))
    as_named = load_extractor("classifier", str(folder), class_names=("cat", "dog", "2", "owl"))
    turned = load_extractor("classifier", str(folder), class_names=("owl", "cat", "dog", "2"))
    expected, found = plain(images()), turned(images())
    assert torch.equal(as_named(images()).logits, expected.logits)
    assert torch.equal(found.pool, expected.pool)
    assert torch.equal(found.logits, expected.logits.roll(1, dims=1))
    assert as_named.fingerprint == plain.fingerprint != turned.fingerprint
    for kind in ("classifier", f"classifier:{file}"):
        words = (
            rf"eval\.extractor: {file} knows other classes .* lacks bird and has owl besides"
        )
        with pytest.raises(ValueError, match=words):
            load_extractor(kind, str(folder), class_names=("cat", "dog", "2", "bird"))


def test_bytes_may_come_from_any_storage(folder):
    data = (folder / "classifier.safetensors").read_bytes()
    asked = []

    def read(path):
        asked.append(path)
        return data

    extract = load_extractor("classifier", "s3://bucket/digits_lt/", read)
    assert asked == ["s3://bucket/digits_lt/classifier.safetensors"]
    there = load_extractor("classifier", str(folder))
    assert torch.equal(extract(images()).pool, there(images()).pool)


def test_an_unknown_extractor_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="eval.extractor 'vgg' is not known.* classifier"):
        load_extractor("vgg", str(tmp_path))


def test_a_missing_classifier_says_how_to_make_it(tmp_path):
    message = r"needs .*classifier\.safetensors, which does not exist.*made the shards"
    with pytest.raises(ValueError, match=message):
        load_extractor("classifier", str(tmp_path))


def test_a_damaged_classifier_is_named_with_its_path(folder):
    file = folder / "classifier.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{file} is damaged.*prepare"):
        load_extractor("classifier", str(folder))


def test_images_of_another_size_are_refused(folder):
    extract = load_extractor("classifier", str(folder))
    with pytest.raises(
        ValueError, match=r"trained on images \(1, 8, 8\), not on \(3, 32, 32\)"
    ):
        extract(torch.zeros(1, 3, 32, 32))


def test_model_range_is_minus_one_to_one():
    x = to_model_range(torch.tensor([0, 255], dtype=torch.uint8))
    assert x.tolist() == [-1, 1] and x.dtype == torch.float32


def test_a_hit_is_the_largest_logit():
    logits = torch.tensor([[0.1, 2.0], [3.0, 1.0], [0.0, -1.0]])
    assert label_hits(logits, torch.tensor([1, 1, 0]), 2).tolist() == [True, False, True]


def test_a_classifier_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="knows 3 classes and the data set has 2"):
        label_hits(torch.zeros(4, 3), torch.zeros(4), 2)


def test_an_extractor_computes_in_ieee_float32_under_autocast_and_tf32(folder):
    seen = []
    extract = load_extractor("classifier", str(folder))
    extract.net.logits.register_forward_hook(
        lambda layer, given, out: seen.append(
            (torch.backends.cudnn.conv.fp32_precision, out.dtype)
        )
    )
    assert torch.backends.cudnn.conv.fp32_precision != "ieee", "torch's default"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        extract(images())
    assert seen == [("ieee", torch.float32)]
