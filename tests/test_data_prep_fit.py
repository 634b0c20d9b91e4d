"""Which images the feature classifier is fitted to."""

import numpy as np
import pytest
from source_tools import watched

from cbdm_scale.cluster.progress import ProgressBar
from cbdm_scale.metrics.classifier import class_places
from cbdm_scale.storage.folder import Storage
from data_prep.writing import fit
from data_prep.writing.fit import choose_rows, fit_classifier


def test_up_to_the_limit_all_images_serve_in_their_order():
    labels = np.array([2, 0, 1, 1, 0])
    assert choose_rows(labels, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("most", [30, 100, 299])
def test_subset_is_as_balanced_as_the_classes_allow(most):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [200, 90, 10, 3]))
    rows = choose_rows(labels, most)
    counts = np.bincount(labels[rows], minlength=4)
    assert most - 4 < len(rows) <= most and len(set(rows)) == len(rows)
    share = counts.max()
    assert counts.tolist() == [min(n, share) for n in (200, 90, 10, 3)]
    assert rows.tolist() == choose_rows(labels, most).tolist() == sorted(rows)
    assert np.diff(rows).max() > 1  # not the first ones


def test_bad_images_are_left_out_and_a_subset_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "MOST_IMAGES", 100)
    monkeypatch.setattr("data_prep.writing.classifier.default_epochs", lambda _: 1)
    source, images = watched()
    bad = int(choose_rows(source.splits["eval"].labels, 100)[7])
    source, images = watched(bad=(bad,))
    monkeypatch.setitem(ProgressBar.__init__.__kwdefaults__, "every_s", 0.0)
    said = []
    fit_classifier(source, Storage(str(tmp_path)), said.append)
    assert said[0].startswith("fitting the feature classifier on 100 of 1,797 images")
    read = [line for line in said if "100 images read | " in line]
    assert len(read) == 100, "reading them is shown, as it takes long"
    assert len(images.asked) == 100 and bad in images.asked
    data = (tmp_path / "classifier.safetensors").read_bytes()
    assert class_places(data, source.class_names[::-1], "it") == list(range(9, -1, -1))
