import pytest
import torch
from feature_tools import normal, skewed
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits

from cbdm_scale.metrics import kmeans as module
from cbdm_scale.metrics.kmeans import kmeans, nearest_centre


def inertia(x, centres):
    return float((x - centres[nearest_centre(x, centres)]).square().sum())


def test_separate_blobs_are_found():
    middles = 50 * normal(0, 20, 8)
    x = (middles[:, None] + normal(1, 20 * 60, 8).view(20, 60, 8)).flatten(0, 1)
    labels = nearest_centre(x, kmeans(x, 20)).view(20, 60)
    assert (labels == labels[:, :1]).all() and len(labels[:, 0].unique()) == 20


@pytest.mark.parametrize("num_clusters", [10, 100])
def test_clusters_are_as_tight_as_scikit_learns(num_clusters):
    x = torch.from_numpy(load_digits().data).float()
    x -= x.mean(0)
    theirs = [
        MiniBatchKMeans(num_clusters, n_init=1, random_state=s).fit(x.numpy()).inertia_
        for s in range(3)
    ]
    ours = [inertia(x, kmeans(x, num_clusters, s)) for s in range(3)]
    assert sum(ours) < 1.02 * sum(theirs)


def test_the_seed_decides():
    x = skewed(0, 500, 6)
    assert torch.equal(kmeans(x, 12, 3), kmeans(x, 12, 3))
    assert not torch.equal(kmeans(x, 12, 3), kmeans(x, 12, 4))


def test_first_centres_avoid_each_other():
    x = torch.cat([torch.zeros(990, 2), torch.tensor([[9.0, 0], [0, 9]]).repeat(5, 1)])
    centres = module.first_centres(x, 3, torch.Generator().manual_seed(0))
    assert len(centres.unique(dim=0)) == 3


def test_the_nearest_centre_is_that_of_the_full_matrix():
    x, centres = skewed(0, 5000, 6), skewed(1, 30, 6)
    assert torch.equal(nearest_centre(x, centres), torch.cdist(x, centres).argmin(1))


def test_identical_images_and_too_many_clusters():
    x = torch.ones(20, 3)
    assert torch.equal(kmeans(x, 4), torch.ones(4, 3))
    with pytest.raises(ValueError, match="21 clusters cannot be made of 20 images"):
        kmeans(x, 21)
