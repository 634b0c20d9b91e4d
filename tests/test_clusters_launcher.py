"""clusters/aws.yaml and gcp.yaml as Ray's launcher, and AWS's client, would take them."""

import copy
import re
from pathlib import Path

import pytest
import yaml

CLUSTERS = Path(__file__).parents[1] / "clusters"
CLOUDS = "aws", "gcp"


def read(cloud):
    return yaml.safe_load((CLUSTERS / f"{cloud}.yaml").read_text())


def prepared(config):
    """The configuration as ``ray up`` completes and checks it before it asks a cloud."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    whole = util.prepare_config(copy.deepcopy(config))
    util.validate_config(whole)
    return whole


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_launcher_accepts_it(cloud):
    config = prepared(read(cloud))
    assert set(config["available_node_types"]) == {"head", "gpu"}
    assert config["docker"]["image"] and config["max_workers"] == 8


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_launcher_refuses_a_word_that_it_does_not_know(cloud):
    """Or the test above would say nothing."""
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        prepared(read(cloud) | {"idle_timeout_minuets": 5})


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_is_kept_and_takes_no_worker_and_the_workers_are_spot_machines(cloud):
    config = read(cloud)
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    start = " ".join(config["head_start_ray_commands"])
    assert config["head_node_type"] == "head"
    assert head["resources"]["CPU"] == 0 and "--num-cpus=0" in start
    spot = re.compile("spot", re.IGNORECASE)
    assert spot.search(str(gpu["node_config"])) and not spot.search(str(head["node_config"]))
    assert gpu["resources"]["GPU"] > 0 and gpu["min_workers"] == 0
    assert config["idle_timeout_minutes"] <= 15, "idle machines are paid for"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_its_ray_asks_for_a_token_and_gives_a_stopped_job_time(cloud):
    config = read(cloud)
    for commands in config["head_start_ray_commands"], config["worker_start_ray_commands"]:
        assert "RAY_AUTH_MODE=token" in commands[-1] and "MLFLOW_TRACKING_URI" in commands[-1]
    head = " ".join(config["head_start_ray_commands"])
    assert re.search(r"RAY_JOB_STOP_WAIT_TIME_S=\d{2,}", head)
    assert "--dashboard-host=127.0.0.1" in head and "0.0.0.0" not in head
    assert config["file_mounts"] == {"/home/cbdm/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("kind", ["head", "gpu"])
def test_ec2_knows_every_field_of_a_machine(kind):
    session = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances")
    fields = read("aws")["available_node_types"][kind]["node_config"]
    validator = ParamValidator()
    wanted = fields | {"MinCount": 1, "MaxCount": 1}
    report = validator.validate(wanted, shape.input_shape).generate_report()
    assert report == ""
    wrong = validator.validate(wanted | {"ImageID": "x"}, shape.input_shape)
    assert "ImageID" in wrong.generate_report()


def test_compute_engine_takes_the_mounts_of_spot_machines():
    """The fields that Compute Engine asks of a spot machine with a GPU."""
    gpu = read("gcp")["available_node_types"]["gpu"]["node_config"]
    scheduling = gpu["scheduling"]
    assert scheduling["provisioningModel"] == "SPOT"
    assert scheduling["instanceTerminationAction"] in ("STOP", "DELETE")
    assert scheduling["onHostMaintenance"] == "TERMINATE"
    assert scheduling["automaticRestart"] is False
    for kind in read("gcp")["available_node_types"].values():
        boot = kind["node_config"]["disks"][0]
        assert boot["boot"] and boot["autoDelete"]
        assert boot["initializeParams"]["sourceImage"].startswith("projects/")
