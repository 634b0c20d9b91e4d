"""A checkpoint as a version of an MLflow model: weights, configuration and code, no pickle."""

import logging
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.tracking.client import database_file, make_client
from cbdm_scale.tracking.errors import address, explain

REQUIREMENTS = "mlflow", "torch", "safetensors", "numpy"
ARTIFACTS = RunDir.CONFIG, RunDir.EMA
MODEL_CODE = Path(__file__).parents[1] / "pretrained" / "mlflow_model.py"
"""What MLflow stores with a model and runs when it loads one."""
log = logging.getLogger(__name__)


def _model_name(run: Storage) -> str:
    """The name of the registered model: the run's, without what MLflow does not allow."""
    return re.sub(r"[^\w\-.]", "_", run.url.rpartition("/")[2], flags=re.ASCII)[:200]


def register(
    client: Any, run: Storage, run_id: str, step: int, checkpoint: str, aliases: Sequence[str]
) -> None:
    """Make the version for this checkpoint, unless it exists, and move the aliases to it."""
    from mlflow.exceptions import MlflowException

    name = _model_name(run)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    number = next((v.version for v in known if v.tags.get("images") == str(step)), None)
    if number is None:
        folder = Storage(checkpoint)
        if not folder.exists(RunDir.EMA):
            log.warning("%s is gone: it is not registered as a model", checkpoint)
            return
        place = f"models/{step:012d}"
        with tempfile.TemporaryDirectory() as scratch:
            _save(run, folder, Path(scratch))
            client.log_artifacts(run_id, str(Path(scratch, "model")), place)
        number = client.create_model_version(
            name,
            source=f"{client.get_run(run_id).info.artifact_uri}/{place}",
            run_id=run_id,
            tags={"images": str(step), "checkpoint": checkpoint},
            await_creation_for=0,
        ).version
    for alias in aliases:
        client.set_registered_model_alias(name, alias, number)


def _save(run: Storage, checkpoint: Storage, scratch: Path) -> None:
    """Write the MLflow model to ``scratch``/model."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    files = {}
    for name, home in (RunDir.CONFIG, run), (RunDir.EMA, checkpoint):
        if home.is_local:
            files[name] = home.local_path(name)
        else:
            files[name] = scratch / name
            files[name].write_bytes(home.read_bytes(name))
    inputs = [
        ColSpec(DataType.long, "label"),
        ColSpec(DataType.long, "seed", required=False),
        ColSpec(DataType.double, "omega", required=False),
    ]
    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, -1))  # (N, H, W, C)
    mlflow.pyfunc.save_model(
        str(scratch / "model"),
        python_model=str(MODEL_CODE),
        artifacts={"config": str(files[RunDir.CONFIG]), "ema": str(files[RunDir.EMA])},
        signature=ModelSignature(Schema(inputs), Schema([images])),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )


def _source(client: Any, uri: str) -> str:
    """Where the files of a version are; left to itself MLflow asks its global registry."""
    name, mark, alias = uri.removeprefix("models:/").partition("@")
    if mark:
        found = client.get_model_version_by_alias(name, alias)
    else:
        name, _, number = name.rpartition("/")
        found = client.get_model_version(name, number)
    return str(found.source)


def fetch_model(uri: str, tracking_uri: str) -> dict[str, bytes]:
    """config.json and ema.safetensors of models:/NAME@ALIAS, models:/NAME/3, runs:/ID/PATH."""
    if (file := database_file(tracking_uri)) is not None and not Path(file).exists():
        raise ValueError(
            f"run ({uri}): {address(tracking_uri)}: there is no such database. A run's is "
            "mlflow.db in the --cluster.storage that it was trained with: give it with "
            "--track.uri sqlite:////folder/mlflow.db, or give --run the run's folder."
        )
    client = make_client(tracking_uri)
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as scratch:
        try:
            source = _source(client, uri) if uri.startswith("models:/") else uri
            download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=tracking_uri)
        except Exception as error:  # each kind of store raises its own
            raise ValueError(
                f"run ({uri}) is not to be had. {explain(tracking_uri, error)} Look the name "
                "up in `mlflow ui`, or give the server or database that the run logged to with "
                "--track.uri."
            ) from error
        found = {f.name: f for f in Path(scratch).rglob("*") if f.name in ARTIFACTS}
        if lacking := sorted(set(ARTIFACTS) - set(found)):
            raise ValueError(
                f"run ({uri}) holds no {' and no '.join(lacking)}, so it is no model of this "
                "project's train command. Try models:/<run name>@newest."
            )
        return {name: file.read_bytes() for name, file in found.items()}
