"""What MLflow does inside and this project does as well: the limits of a request, image files.

All is as found in MLflow 3.17, the oldest that pyproject.toml takes; nothing private is
imported. After an upgrade tests/test_mlflow_internals.py says what changed: mend it here, and
nothing else. A limit that became lower shows as a record that MLflow refuses, with a warning;
images whose names it does not know any more are still files of the run, without a picture.
"""

import io
import uuid
from pathlib import Path

METRICS_PER_CALL = 1000
"""MAX_METRICS_PER_BATCH of mlflow.utils.validation."""
PARAMS_PER_CALL = 100
"""MAX_PARAMS_TAGS_PER_BATCH: parameters, or tags."""
LONGEST_NAME = 250
"""MAX_ENTITY_KEY_LENGTH: names of metrics, parameters and tags."""
LONGEST_PARAM = 6000
"""MAX_PARAM_VAL_LENGTH."""
LONGEST_TAG = 5000
"""Below MAX_TAG_VAL_LENGTH, for servers of before 3.0."""
IMAGES_FOLDER = "images"
IMAGES_TAG = "mlflow.loggedImages"
"""Set to "true" where a run has images: its page shows them then."""
THUMBNAIL = 256, 256


def write_image(png: bytes, name: str, step: int, time_ms: int, run_id: str, to: Path) -> None:
    """Write an image's two files into a local folder, as ``MlflowClient.log_image`` names them.

    Its names end in a random number; these follow from run, name and step, so that an image
    that is sent once more replaces itself.
    """
    same = uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{name}/{step}")
    stem = f"{name.replace('/', '~')}+step+{step}+timestamp+{time_ms}+{same}"
    (to / f"{stem}.png").write_bytes(png)
    from PIL import Image  # a command's --help imports this file

    with Image.open(io.BytesIO(png)) as image:
        image.thumbnail(THUMBNAIL)
        image.save(to / f"{stem}+compressed.webp")
