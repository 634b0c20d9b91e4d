import pytest
import torch
from feature_tools import normal
from torch_fidelity.metric_isc import isc_features_to_metric

from cbdm_scale.metrics.inception_score import inception_score, inception_score_of_logits


def test_the_score_is_torch_fidelitys_in_the_order_given():
    logits = 3 * normal(0, 103, 7)  # splits of unequal size
    known = isc_features_to_metric(logits, splits=10, shuffle=False)
    found = inception_score_of_logits(logits)
    assert found.value == pytest.approx(known["inception_score_mean"], rel=1e-10)
    assert found.high - found.value == pytest.approx(known["inception_score_std"], rel=1e-8)


def test_sure_and_even_is_the_number_of_classes_and_unsure_or_one_class_is_one():
    y = torch.arange(1000) % 10
    sure = torch.nn.functional.one_hot(y, 10).float()
    assert inception_score(sure).value == pytest.approx(10)
    assert inception_score(sure).high == pytest.approx(10)
    assert inception_score(torch.full((100, 10), 0.1)).value == pytest.approx(1)
    assert inception_score(sure[:1].expand(100, 10)).value == pytest.approx(1)


def test_order_matters_sorted_images_have_no_score():
    sure = torch.nn.functional.one_hot(torch.arange(1000) // 100, 10).float()
    assert inception_score(sure).value == pytest.approx(1)
    assert inception_score(sure, num_splits=1).value == pytest.approx(10)


def test_what_is_not_a_probability_is_refused():
    with pytest.raises(ValueError, match="Are these logits"):
        inception_score(normal(0, 20, 3))
    with pytest.raises(ValueError, match="at least 10 images for its 10 splits"):
        inception_score(torch.full((9, 2), 0.5))
