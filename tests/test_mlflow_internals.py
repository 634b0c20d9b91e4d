"""What this project does as MLflow does it inside, held against the installed MLflow."""

import io
import re
from pathlib import Path

import pytest
from mlflow import environment_variables
from mlflow.utils import mlflow_tags, validation
from PIL import Image
from tracking_tools import make_database, make_png

from cbdm_scale.tracking import mlflow_internals as ours
from cbdm_scale.tracking.client import PATIENCE, QUIET, make_client

MEND = "MLflow changed: mend cbdm_scale/tracking/{}."
IN_INTERNALS = MEND.format("mlflow_internals.py")


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("METRICS_PER_CALL", "MAX_METRICS_PER_BATCH"),
        ("PARAMS_PER_CALL", "MAX_PARAMS_TAGS_PER_BATCH"),
        ("LONGEST_NAME", "MAX_ENTITY_KEY_LENGTH"),
        ("LONGEST_PARAM", "MAX_PARAM_VAL_LENGTH"),
        ("LONGEST_TAG", "MAX_TAG_VAL_LENGTH"),
    ],
)
def test_no_limit_is_above_mlflows(name, theirs):
    assert getattr(ours, name) <= getattr(validation, theirs, 0), (
        f"{name} is above mlflow.utils.validation.{theirs}. {IN_INTERNALS}"
    )


def test_the_environment_that_keeps_mlflow_quiet_is_one_that_it_reads():
    known = vars(environment_variables)
    unknown = {name for name in QUIET | PATIENCE if name.startswith("MLFLOW_")} - set(known)
    assert unknown <= {"MLFLOW_DISABLE_TELEMETRY"}, f"{unknown}: {MEND.format('client.py')}"


def parts(path: Path) -> tuple[str, str]:
    """An image's file name without the random number, and what that number looks like."""
    match = re.fullmatch(r"(.*\+)([0-9a-f-]{36})((?:\+compressed)?\.\w+)", path.name)
    assert match, f"{path.name}: {IN_INTERNALS}"
    return match[1] + match[3], re.sub("[0-9a-f]", "x", match[2])


def test_an_image_has_the_names_sizes_and_the_tag_that_mlflow_gives_it(tmp_path):
    client = make_client(make_database(tmp_path))
    home = client.create_experiment("one", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(home).info.run_id
    png = make_png()
    client.log_image(
        run_id, Image.open(io.BytesIO(png)), key="grids/ema", step=48, timestamp=1234
    )
    (tmp_path / "ours").mkdir()
    ours.write_image(png, "grids/ema", 48, 1234, run_id, tmp_path / "ours")

    theirs = tmp_path / "artifacts" / run_id / "artifacts" / ours.IMAGES_FOLDER
    for suffix in ".png", ".webp":
        [a], [b] = theirs.glob(f"*{suffix}"), (tmp_path / "ours").glob(f"*{suffix}")
        assert parts(a) == parts(b), IN_INTERNALS
        assert abs(Image.open(a).height - Image.open(b).height) <= 1, IN_INTERNALS
        assert Image.open(a).width == Image.open(b).width, IN_INTERNALS
    assert ours.IMAGES_TAG == mlflow_tags.MLFLOW_LOGGED_IMAGES, IN_INTERNALS
    assert client.get_run(run_id).data.tags[ours.IMAGES_TAG].lower() == "true", IN_INTERNALS
