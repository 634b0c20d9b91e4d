"""A checkpoint when a node is announced to go, and one more before it goes."""

import time
from types import SimpleNamespace

import pytest
from ray.train import PreemptionInfo

from cbdm_scale.cluster.options import ClusterConfig
from cbdm_scale.cluster.preemption import PreemptionMonitor


def info(nodes: dict[str, list[int]], in_s: float | None) -> PreemptionInfo:
    deadline_ms = None if in_s is None else round(1000 * (time.time() + in_s))
    return PreemptionInfo(deadline_ms=deadline_ms, preempted_node_to_ranks=nodes)


def ask(
    notice: PreemptionMonitor,
    told: list[PreemptionInfo | None],
    found: PreemptionInfo | None,
    write_s: float,
) -> bool:
    told[0] = found
    return notice.is_due(write_s)


def test_at_once_and_again_three_writes_before_the_deadline() -> None:
    told: list[PreemptionInfo | None] = [None]
    said: list[str] = []
    notice = PreemptionMonitor(said.append, lambda: told[0])
    far, near = (info({"n1": [1, 2]}, s) for s in (100, 20))
    assert not ask(notice, told, None, 1)
    assert ask(notice, told, far, 1) and len(said) == 1
    assert "node of worker 1 2 goes in 100 s" in said[0] or "goes in 99 s" in said[0]
    assert not ask(notice, told, far, 1)
    assert not ask(notice, told, near, 5), "15 seconds are enough"
    assert ask(notice, told, near, 8)
    assert not ask(notice, told, near, 8), "once"
    assert len(said) == 1


def test_a_short_notice_is_one_checkpoint_at_once_and_the_last_one_near_its_end() -> None:
    told: list[PreemptionInfo | None] = [None]
    notice = PreemptionMonitor(lambda line: None, lambda: told[0])
    short = info({"n1": [0]}, 4)
    assert ask(notice, told, short, 0.1)
    assert ask(notice, told, short, 0.1)
    assert not ask(notice, told, short, 0.1)


def test_another_node_is_another_notice_and_no_deadline_is_no_second_checkpoint() -> None:
    told: list[PreemptionInfo | None] = [None]
    said: list[str] = []
    notice = PreemptionMonitor(said.append, lambda: told[0])
    assert ask(notice, told, info({"n1": [0]}, None), 1) and "goes soon" in said[0]
    assert not ask(notice, told, info({"n1": [0]}, None), 1)
    assert ask(notice, told, info({"n1": [0], "n2": [1]}, None), 1) and len(said) == 2


def test_what_ray_train_tells_a_worker_is_read_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train.v2._internal.execution import context
    from ray.train.v2._internal.execution.preemption import PreemptionContext

    said: list[str] = []
    notice = PreemptionMonitor(said.append)
    assert not notice.is_due(1), "not on a worker"
    here = SimpleNamespace(preemption_context=PreemptionContext())
    monkeypatch.setattr(context, "_train_context", here)
    assert not notice.is_due(1)
    here.preemption_context.preemption_info = info({"b": [2], "a": [1, 0]}, 500.3)
    assert notice.is_due(0.1) and "node of worker 0 1 2 goes in 500 s" in said[0]


def test_preemptions_have_a_limit_of_their_own() -> None:
    assert ClusterConfig().max_preemption_failures == -1
    with pytest.raises(
        ValueError, match=r"max_preemption_failures must be at least -1, got -2"
    ):
        ClusterConfig(max_preemption_failures=-2)
