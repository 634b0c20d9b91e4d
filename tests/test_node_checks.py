"""The preflight, on nodes that are folders of this machine, and on a real one."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
from ray_tools import command, run_here

from cbdm_scale.cluster.causes import CAUSES, CURES, cause_of
from cbdm_scale.cluster.node_probes import Problem, problem_of
from cbdm_scale.config.presets import preset
from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.devices import gpu_names
from cbdm_scale.runs import node_checks as module
from cbdm_scale.runs.node_checks import check_nodes, meet
from cbdm_scale.storage.folder import Storage


class FakeNodes:
    """Nodes that answer here; ``change`` makes of (node, question) what one of them does."""

    def __init__(self, *names, change=lambda name, question: question, gpus=None):
        """gpus: what ``ask_gpus`` says of each node that has GPUs, two each."""
        self.names, self.change, self.gpus = list(names), change, gpus or {}
        self.num_gpus = [2 * (name in self.gpus) for name in names]

    def ask_gpus(self, question):
        assert question is gpu_names
        return [self.gpus.get(name) for name in self.names]

    def ask(self, questions):
        answers = []
        for name, question in zip(self.names, questions, strict=True):
            try:
                answers.append(self.change(name, question)())
            except Exception as error:
                answers.append(problem_of(error))
        return answers


def is_about(question, function):
    return getattr(question, "func", question) is function


@pytest.fixture
def ready(digits_root, tmp_path):
    """What ``check_nodes`` takes: a configuration, its data, and a database in the storage."""
    base = preset("digits_lt")
    config = replace(
        base,
        data=replace(base.data, root=digits_root),
        cluster=replace(base.cluster, storage=str(tmp_path / "runs")),
    )
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    return config, read_manifest(digits_root, "digits_lt"), uri


def test_nodes_that_see_everything_pass_and_nothing_stays(ready, tmp_path):
    check_nodes(FakeNodes("a", "b", "c"), *ready)
    assert list((tmp_path / "runs").iterdir()) == []


def refusal(nodes, ready):
    with pytest.raises(ValueError, match="the cluster is not ready") as caught:
        check_nodes(nodes, *ready)
    lines = str(caught.value).splitlines()[1:]
    assert lines and all(line.startswith("node ") for line in lines)
    return lines


def test_a_node_with_storage_of_its_own_is_named_with_path_and_way_out(ready, tmp_path):
    elsewhere = Storage(str(tmp_path / "not mounted"))

    def change(name, question):
        if name == "b" and is_about(question, meet):
            return partial(meet, elsewhere, *question.args[1:])
        return question

    (line,) = refusal(FakeNodes("a", "b", change=change), ready)
    assert line.startswith(f"node b does not share cluster.storage ({tmp_path}/runs): ")
    assert "NFS" in line and "--cluster.storage" in line
    assert not (tmp_path / "not mounted").exists()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_node_whose_writing_does_not_arrive_is_named(ready):
    def change(name, question):
        return (lambda: None) if name == "b" and is_about(question, meet) else question

    (line,) = refusal(FakeNodes("a", "b", change=change), ready)
    assert "node b does not share cluster.storage" in line and "is not here" in line


def test_a_node_without_the_data_or_with_another_copy_is_named(ready, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(ready[0].data.root, other)
    file = other / "digits_lt/dataset.json"
    file.write_text(file.read_text().replace('"source": "', '"source": "another '))

    def change(name, question):
        root = {"b": str(tmp_path / "nothing"), "c": str(other)}.get(name)
        if root and is_about(question, module._fingerprint):
            return partial(module._fingerprint, root, "digits_lt")
        return question

    b, c = refusal(FakeNodes("a", "b", "c", change=change), ready)
    assert b.startswith(f"node b does not see data.root ({ready[0].data.root}): ")
    assert "--data.root" in b
    assert c.startswith("node c has another digits_lt") and ready[1].fingerprint in c


def test_a_node_with_another_torch_is_told_before_it_is_asked_more(ready):
    def change(name, question):
        assert question is module.versions
        return lambda: module.versions() | ({"torch": "1.0"} if name == "b" else {})

    (line,) = refusal(FakeNodes("a", "b", change=change), ready)
    assert line.startswith("node b: torch 1.0 there, ") and "constraints.txt" in line


def test_a_node_without_this_code_is_told_so(ready):
    def change(name, question):
        if name == "b":
            raise ModuleNotFoundError("No module named 'cbdm_scale'")
        return question

    (line,) = refusal(FakeNodes("a", "b", change=change), ready)
    assert "No module named 'cbdm_scale'" in line and "clusters/Dockerfile" in line


SAID = {  # cause -> what Ray, a store or the system say
    "token": "InvalidAuthToken: Authentication token is missing or incorrect",
    "gone": "The actor died because its node has died. Node Id: 4f",
    "silent": "no answer within 60 s",
    "died": "The actor died unexpectedly before finishing this task.",
    "memory": "Task was killed due to the node running low on memory: OutOfMemoryError",
    "code": "ModuleNotFoundError: No module named 'cbdm_scale'",
    "rights": "[Errno 13] Permission denied: '/data/digits_lt/dataset.json'",
    "readonly": "[Errno 30] Read-only file system: '/runs/x'",
    "full": "[Errno 28] No space left on device: '/runs/x'",
    "credentials": "cannot read b/x, it is refused: AWS Error ACCESS_DENIED during HeadObject",
    "away": "cannot read b/x after 6 attempts: AWS Error NETWORK_CONNECTION: timed out",
    "missing": "data.root (/data) holds no data set x: /data/x does not exist.",
    "damaged": "shards.parquet does not have the sha256 that dataset.json names",
    "version": "Version mismatch: The cluster was started with",
    "": "the moon is full",
}


@pytest.mark.parametrize("about", [module.versions, module._fingerprint, meet])
def test_what_mends_a_node_follows_from_the_cause_and_not_from_the_question(about, ready):
    """A token, a node that is gone or silent: none of them wants another environment."""
    assert CAUSES.keys() == SAID.keys() - {""} == CURES.keys() | {"missing"}
    for cause, words in SAID.items():
        assert cause_of(words) == cause, words

        def change(name, question, words=words):
            if is_about(question, about):
                raise OSError(words)
            return question

        (line,) = refusal(FakeNodes("a", change=change), ready)
        reason, cure = words.rstrip("."), CURES.get(cause, "")
        if cause == "missing" and about is not module.versions:
            assert "Mount" in line
        else:
            assert line.endswith(f": {reason}. {cure}." if cure else f": {reason}."), line


def test_a_copy_that_a_node_lacks_is_not_to_be_made_again_there(ready, tmp_path):
    question = partial(module._fingerprint, str(tmp_path), "digits_lt")
    with pytest.raises(ValueError, match="does not exist[.]$"):
        question()


def test_a_server_that_does_not_answer_is_named_without_its_password(ready):
    uri = "http://me:hunter2@127.0.0.1:1"
    for line in refusal(FakeNodes("a", "b"), (*ready[:2], uri)):
        assert "does not reach MLflow: track.uri (http://127.0.0.1:1) does not answer" in line
        assert "hunter2" not in line and "Open the way" in line
        assert "MLFLOW_TRACKING_... variables" not in line, "nobody asked who it is"


def test_a_database_outside_the_storage_must_be_shared_too(ready, tmp_path):
    uri = f"sqlite:///{tmp_path}/elsewhere/mlflow.db"

    def change(name, question):
        if is_about(question, meet) and "elsewhere" in question.args[0].url:
            return partial(meet, Storage(str(tmp_path / "own")), *question.args[1:])
        return question

    (line,) = refusal(FakeNodes("a", change=change), (*ready[:2], uri))
    assert line.startswith(f"node a does not share track.uri ({tmp_path}/elsewhere)")


def test_a_node_whose_gpus_do_not_work_is_named_with_the_reason_once(ready):
    reason = "the NVIDIA driver, which is for CUDA 12.2, is too old for torch 2"
    nodes = FakeNodes("a", "b", gpus={"a": ["H200", "H200"], "b": Problem(reason)})
    (line,) = refusal(nodes, ready)
    assert line.startswith(f"node b has 2 GPUs for Ray, and none that works: {reason}.")
    assert "--cluster.device cpu" in line
    on_cpu = replace(ready[0], cluster=replace(ready[0].cluster, device="cpu"))
    assert check_nodes(nodes, on_cpu, *ready[1:]) == ["a", "b"]


def test_the_gpus_of_every_node_are_said(ready):
    gpus = {"a": ["H200", "H200"], "b": None}
    assert check_nodes(FakeNodes("a", "b", "c", gpus=gpus), *ready) == [
        "a, 2 x H200",
        "b, 2 GPUs, all taken now and not looked at",
        "c, no GPU and so no worker",
    ]


def test_without_workers_this_process_is_asked_alone(ready):
    config, manifest, uri = ready
    alone = replace(config, cluster=replace(config.cluster, workers=0))
    assert "nodes this process see code, data" in module.look_at_nodes(alone, manifest, uri)


@pytest.mark.ray
def test_the_command_asks_the_nodes_of_a_real_cluster(work, capsys):
    words = command(work, "asked", 1, 48)
    words[words.index("cbdm_scale.train")] = "cbdm_scale.preflight"
    assert run_here(words) == 0
    assert "see code, data, storage and tracker" in capsys.readouterr().out
    assert not (work / "runs" / "asked").exists()
