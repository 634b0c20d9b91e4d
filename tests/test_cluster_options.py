"""Fewer workers while a node is away: which numbers fit, and what is asked of Ray."""

import pytest

from cbdm_scale.cluster.connect import check_resources
from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.config.schema import Config
from cbdm_scale.training.options import TrainConfig


def test_without_the_option_all_workers_are_needed():
    assert ClusterConfig(workers=3).fewest == 3
    with pytest.raises(ValueError, match=r"cluster.workers \(3\).* needs 3 CPUs.*has 2"):
        check_resources(ClusterConfig(workers=3), {"CPU": 2})


def test_with_it_the_fewest_decide():
    check_resources(ClusterConfig(workers=3, min_workers=1), {"CPU": 1})
    with pytest.raises(ValueError, match=r"cluster.min_workers \(2\).* needs 2 CPUs.*has 1"):
        check_resources(ClusterConfig(workers=3, min_workers=2), {"CPU": 1})
    with pytest.raises(ValueError, match=r"cluster.min_workers \(2\) needs as many GPUs"):
        check_resources(ClusterConfig(workers=3, min_workers=2, device="gpu"), {"CPU": 4})


def test_fewer_gpus_than_workers_are_an_error_and_never_training_on_the_cpu():
    two = {"CPU": 8, "GPU": 2}
    with pytest.raises(
        ValueError, match=r"\(3\) needs as many GPUs.* has 2. Try --cluster.work"
    ):
        check_resources(ClusterConfig(workers=3), two)
    with pytest.raises(ValueError, match="Try --cluster.workers 2 or --cluster.device cpu"):
        check_resources(ClusterConfig(workers=3), two)
    with pytest.raises(ValueError, match=r"the cluster has 0. Try --cluster.device cpu"):
        check_resources(ClusterConfig(workers=1, device="gpu"), {"CPU": 8})
    for config in (
        ClusterConfig(workers=2),
        ClusterConfig(workers=3, min_workers=2),
        ClusterConfig(workers=3, device="cpu"),
    ):
        check_resources(config, two)
    check_resources(ClusterConfig(workers=3), {"CPU": 8})


def test_what_a_worker_leaves_of_its_gpu_is_for_evaluations_beside_training():
    assert ClusterConfig().gpus_beside == 1
    assert ClusterConfig(gpus_per_worker=0.9).gpus_beside == 0.1
    for share in (0.5, 1.5):
        with pytest.raises(ValueError, match="cluster.gpus_per_worker must be"):
            ClusterConfig(gpus_per_worker=share)


def test_the_fewest_are_not_more_than_all():
    with pytest.raises(ValueError, match=r"cluster.min_workers must be at least 0, got -1"):
        ClusterConfig(workers=3, min_workers=-1)
    with pytest.raises(ValueError, match=r"cluster.min_workers must be from 0 to .* \(3\)"):
        ClusterConfig(workers=3, min_workers=4)


def test_every_number_of_workers_in_between_divides_the_batch():
    """5 would leave a rank of 48 with another share."""
    cluster = ClusterConfig(workers=6, min_workers=4)
    with pytest.raises(ValueError, match=r"batch_size \(48\) must be divisible .* \(5\)"):
        Config(cluster=cluster, train=TrainConfig(batch_size=48))
    Config(cluster=cluster, train=TrainConfig(batch_size=60))
