"""Private parts of Ray, held against the Ray that is installed."""

import importlib
import inspect
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray.train
import ray.train.torch
from ray._private import ray_constants, services, state, utils
from ray._private.authentication import http_token_authentication as tokens
from ray._private.runtime_env import working_dir
from ray.scripts import scripts
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution import context
from ray.train.v2._internal.execution.preemption import PreemptionContext

from cbdm_scale.cluster import ray_internals
from cbdm_scale.storage.path_options import JOB_COPY

MEND = "Ray changed: mend cbdm_scale/cluster/ray_internals.py: "


def test_what_an_autoscaler_could_add_is_asked_of_the_state(monkeypatch):
    cluster = SimpleNamespace(get_max_resources_from_cluster_config=lambda: {"CPU": 64})
    asked = type(state.state).get_max_resources_from_cluster_config
    assert inspect.signature(asked).parameters.keys() == {"self"}, MEND + "its arguments"
    monkeypatch.setattr(state, "state", cluster)
    assert ray_internals.max_cluster_resources() == {"CPU": 64}
    cluster.get_max_resources_from_cluster_config = lambda: None
    assert ray_internals.max_cluster_resources() == {}, "no autoscaler"
    monkeypatch.delattr(state, "state")
    assert ray_internals.max_cluster_resources() == {}, "another Ray"


def test_a_loopback_address_stays_what_it_is_once_ray_is_told(monkeypatch):
    monkeypatch.setenv(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "1")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_internals.keep_loopback()
    words = MEND + "keep_loopback has no effect; Ray would listen on the host's address"
    assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1", words
    assert services.get_node_ip_address() == "127.0.0.1", words
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    assert not ray_constants.env_bool(name, True), words

    monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    with pytest.raises(RuntimeError, match="switch to stay on loopback.*constraints.txt"):
        ray_internals.keep_loopback()


def test_ray_init_takes_the_address_of_the_node():
    assert '"_node_ip_address"' in inspect.getsource(ray.init), MEND + "init_on_loopback"


def test_where_ray_start_writes_its_address_is_where_it_is_read(tmp_path, monkeypatch):
    words = MEND + "ray_start_address"
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    assert ray_internals.ray_start_address() == ""
    utils.write_ray_address("127.0.0.1:6379")
    assert ray_internals.ray_start_address() == "127.0.0.1:6379", words
    written = inspect.getsource(scripts.start.callback)
    assert "write_ray_address(ray_params.gcs_address, temp_dir)" in written, words
    monkeypatch.setattr("os.getuid", lambda: -1)
    assert ray_internals.ray_start_address() == "", "somebody else's"
    monkeypatch.undo()
    monkeypatch.delattr(utils, "get_ray_address_file")
    assert ray_internals.ray_start_address() == "", "another Ray"


def test_who_does_not_know_how_to_ask_for_a_token_lets_ray_try(monkeypatch):
    words = MEND + "token_is_refused"
    assert tokens.get_auth_headers_if_auth_enabled({}).keys() == {"authorization"}, words
    assert not ray_internals.token_is_refused("127.0.0.1:9"), "nobody says no there"
    monkeypatch.delattr(tokens, "get_auth_headers_if_auth_enabled")
    assert not ray_internals.token_is_refused("127.0.0.1:9"), "another Ray"


def test_what_ray_puts_in_the_place_of_handlers_and_starts_in_our_group_is_known():
    words = MEND + "keep_signals"
    assert "_private.utils.set_sigterm_handler(" in inspect.getsource(ray.init), words
    before, theirs = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    with ray_internals.keep_signals():
        utils.set_sigterm_handler(lambda number, frame: None)
        assert signal.getsignal(signal.SIGTERM) is before, words
    assert utils.set_sigterm_handler is theirs
    started = inspect.getsource(services.start_ray_process)
    assert "process = ConsolePopen(" in started, MEND + "init_on_loopback: nothing is shielded"


def test_the_folder_that_jobs_work_in_is_known_by_its_name(tmp_path):
    plugin = working_dir.WorkingDirPlugin(str(tmp_path), gcs_client=None)
    assert Path(plugin._resources_dir).name == JOB_COPY, (
        "Ray changed: mend cbdm_scale/storage/path_options.py, or jobs lose what they write"
    )


def test_the_trainer_forms_no_group_needs_no_ray_data_and_leaves_ctrl_c_to_us():
    trainer = ray_internals.data_parallel_trainer()
    theirs = trainer.__base__
    words = MEND + "data_parallel_trainer, disable_sigint_handler"
    assert issubclass(ray.train.torch.TorchTrainer, theirs), words
    assert "_register_sigint_handler(controller)" in inspect.getsource(theirs), words

    made = trainer(lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=1))
    made_by = [
        [type(one).__name__ for one in kind._create_default_callbacks(made)]
        for kind in (trainer, theirs)
    ]
    assert "DatasetsCallback" in made_by[1], words
    assert made_by[0] == [one for one in made_by[1] if one != "DatasetsCallback"]
    assert type(made.backend_config) is ray.train.BackendConfig, words
    before = signal.getsignal(signal.SIGINT)
    ray_internals.disable_sigint_handler(made)
    made._register_sigint_handler(None)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_ray_train_tells_a_worker_of_nodes_that_go_is_read_as_it_is(monkeypatch):
    assert ray_internals.preemption_info() is None, "not on a worker"
    here = SimpleNamespace(preemption_context=PreemptionContext())
    assert "preemption_context" in context.TrainContext.__dataclass_fields__, (
        MEND + "preemption_info: no notice would be heard"
    )
    monkeypatch.setattr(context, "_train_context", here)
    assert ray_internals.preemption_info() is None
    info = ray.train.PreemptionInfo(deadline_ms=5500, preempted_node_to_ranks={"b": [2]})
    here.preemption_context.preemption_info = info
    assert ray_internals.preemption_info() is info


@pytest.mark.parametrize(
    "name",
    [
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
        "RAY_TRAIN_ENABLE_PRINT_PATCH",
    ],
)
def test_the_environment_that_is_set_for_ray_train_is_one_that_it_reads(name):
    known = {value for value in vars(constants).values() if isinstance(value, str)}
    assert name in known, f"Ray changed: find what {name} is called now, and set that"


def test_tunes_own_answer_to_ctrl_c_is_switched_off_by_a_name_that_it_reads():
    source = inspect.getsource(importlib.import_module("ray.tune.tune")._setup_signal_catching)
    assert 'os.getenv("TUNE_DISABLE_SIGINT_HANDLER"' in source, (
        "Ray changed: mend tune/ray_trials.py, or a search that Ctrl-C ends goes on as if done"
    )
