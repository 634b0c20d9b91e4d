"""clusters/kuberay against the schemas of KubeRay's own definitions, where they are at hand."""

import copy
import os
import re
from pathlib import Path

import pytest
import yaml

KUBERAY = Path(__file__).parents[1] / "clusters" / "kuberay"
FILES = {"RayJob": "rayjob.yaml", "RayCluster": "raycluster.yaml"}


def read(kind):
    (content,) = yaml.safe_load_all((KUBERAY / FILES[kind]).read_text())
    return content


def find_definitions():
    """CBDM_KUBERAY_CRDS, or data/kuberay in a folder "shared" beside the clone."""
    chosen = os.environ.get("CBDM_KUBERAY_CRDS")
    places = [chosen] if chosen else [f / "shared/data/kuberay" for f in KUBERAY.parents]
    return next((Path(p) for p in places if Path(p).is_dir()), None)


@pytest.fixture(scope="module")
def schemas():
    """Kind -> the strict schema of its version v1."""
    folder = find_definitions()
    if folder is None:
        pytest.skip("KubeRay's definitions are not here: CBDM_KUBERAY_CRDS=FOLDER names them")
    found = {}
    for kind in FILES:
        text = (folder / f"ray.io_{kind.lower()}s.yaml").read_text()
        definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for version in definition["spec"]["versions"]:
            if version["name"] == "v1":
                found[kind] = version["schema"]["openAPIV3Schema"]
    return found


def problems(value, schema, where=""):
    """What a strict API server would say of a value: unknown fields are errors.

    The part of OpenAPI v3 that these definitions use.
    """
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        return [] if fits else [f"{where} is {value!r}, no number or text"]
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": int | float,
    }
    kind = schema.get("type")
    wrong = kind and not isinstance(value, types[kind])
    if wrong or (kind in ("integer", "number") and isinstance(value, bool)):
        return [f"{where} is {value!r}, no {kind}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}, none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where} is {value!r}, not like {schema['pattern']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where} is {value!r}, below {schema['minimum']}")
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += problems(item, schema.get("items", {}), f"{where}[{i}]")
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or not (known or rest)
        lacking = sorted(set(schema.get("required", ())) - set(value))
        found += [f"{where}.{name} is missing" for name in lacking]
        for name, item in value.items():
            below = known.get(name, rest if isinstance(rest, dict) else None)
            if below is not None:
                found += problems(item, below, f"{where}.{name}")
            elif not open_ended and not rest:
                found.append(f"{where}.{name} is not known")
    return found


@pytest.mark.parametrize("kind", FILES)
def test_kuberay_knows_every_field(schemas, kind):
    assert problems(read(kind), schemas[kind]) == []


def cluster_of(kind, content):
    return content["spec"]["rayClusterSpec"] if kind == "RayJob" else content["spec"]


@pytest.mark.parametrize("kind", FILES)
def test_a_mistake_anywhere_would_be_seen(schemas, kind):
    """A wrong name, type, choice and a missing field, each deep inside."""

    def container(content):
        worker = cluster_of(kind, content)["workerGroupSpecs"][0]
        return worker["template"]["spec"]["containers"][0]

    def misspelt(content):
        container(content)["volumeMount"] = []

    def of_a_wrong_type(content):
        cluster_of(kind, content)["workerGroupSpecs"][0]["maxReplicas"] = "8"

    def of_no_choice(content):
        cluster_of(kind, content)["authOptions"]["mode"] = "password"

    def without_a_field(content):
        del container(content)["name"]

    for spoil in misspelt, of_a_wrong_type, of_no_choice, without_a_field:
        content = copy.deepcopy(read(kind))
        spoil(content)
        assert len(problems(content, schemas[kind])) == 1, spoil.__name__


@pytest.mark.parametrize("file", sorted(f.name for f in KUBERAY.glob("*.yaml")))
def test_the_pods_around_it_are_pods_too(schemas, file):
    """Deployments and the job's submitter, by the schema of a worker's pod."""
    cluster = schemas["RayCluster"]["properties"]["spec"]["properties"]
    worker = cluster["workerGroupSpecs"]["items"]["properties"]["template"]
    for content in yaml.safe_load_all((KUBERAY / file).read_text()):
        if content["kind"] == "Deployment":
            assert problems(content["spec"]["template"], worker) == []
            labels = content["spec"]["template"]["metadata"]["labels"]
            assert content["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("kind", FILES)
def test_it_keeps_what_the_read_me_promises(kind):
    """Token, autoscaling, a head that may move, GPU workers, memory for Ray's objects."""
    cluster = cluster_of(kind, read(kind))
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (waits,) = (
        e["value"]
        for e in head["template"]["spec"]["containers"][0]["env"]
        if e["name"] == "RAY_JOB_STOP_WAIT_TIME_S"
    )
    assert int(waits) < head["template"]["spec"]["terminationGracePeriodSeconds"]
    (worker,) = cluster["workerGroupSpecs"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    (shm,) = (v for v in pod["volumes"] if v["name"] == mounts["/dev/shm"])
    assert shm["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("file", sorted(f.name for f in KUBERAY.glob("*.yaml")))
def test_secrets_are_named_and_never_written(file):
    def entries(value):
        if isinstance(value, dict):
            if "name" in value and ("value" in value or "valueFrom" in value):
                yield value
            for below in value.values():
                yield from entries(below)
        elif isinstance(value, list):
            for below in value:
                yield from entries(below)

    secret = re.compile("PASS|SECRET|TOKEN|KEY|URI", re.IGNORECASE)
    for content in yaml.safe_load_all((KUBERAY / file).read_text()):
        assert not [e for e in entries(content) if secret.search(e["name"]) and "value" in e]
