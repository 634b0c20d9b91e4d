import pytest
import torch

from cbdm_scale.metrics.fidelity import label_hits


def test_a_hit_is_the_largest_logit():
    logits = torch.tensor([[0.1, 2.0], [3.0, 1.0], [0.0, -1.0]])
    assert label_hits(logits, torch.tensor([1, 1, 0]), 2).tolist() == [True, False, True]


def test_a_classifier_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="knows 3 classes and the data set has 2"):
        label_hits(torch.zeros(4, 3), torch.zeros(4), 2)
