"""Networks that make features, by name: the one place that knows them all.

features.py says what an extractor and its recipe are; classifier.py, inception.py and dinov2.py
are three of them.
"""

from collections.abc import Callable
from pathlib import Path

from cbdm_scale.metrics.classifier import missing_classifier
from cbdm_scale.metrics.features import ClassifierRecipe, Recipe
from cbdm_scale.metrics.options import EvalConfig, Resize
from cbdm_scale.storage.checks import check_value

Read = Callable[[str], bytes]
"""The bytes at a path or URL; raises FileNotFoundError where there is nothing."""

EXTRACTORS = "classifier", "classifier:PATH", "inception", "dinov2", "none"


def _read_local(path: str) -> bytes:
    """Read a file of this machine."""
    return Path(path).expanduser().read_bytes()


def find_extractor(
    name: str,
    folder: str,
    read: Read = _read_local,
    *,
    weights: str = "",
    allow_weights: bool = False,
    resize: Resize = "bilinear",
) -> Recipe:
    """The recipe of extractor ``name``, its files found and checked.

    ``folder`` is that of the data set, where ``classifier`` lies; ``weights``, ``resize`` and
    ``allow_weights`` are for the networks that others have published.
    """
    check_value("eval.resize", resize, Resize, default="bilinear")
    kind, _, path = name.partition(":")
    if kind == "classifier":
        path = path or f"{folder.rstrip('/')}/classifier.safetensors"
        try:
            return ClassifierRecipe(
                (read if path.startswith(folder) else _read_local)(path), path
            )
        except FileNotFoundError as error:
            raise missing_classifier(path) from error
    if name == "inception":
        from cbdm_scale.metrics.inception import find_inception

        return find_inception(weights, allow_weights, resize)
    if name == "dinov2":
        from cbdm_scale.metrics.dinov2 import find_dinov2

        return find_dinov2(weights, allow_weights, resize)
    known = ", ".join(EXTRACTORS)
    raise ValueError(f"eval.extractor {name!r} is not known. Choose from: {known}.")


def recipe_of(options: EvalConfig, folder: str, read: Read) -> Recipe:
    """The extractor that a run's ``options`` name; ``folder`` is that of the data set."""
    return find_extractor(
        options.extractor,
        folder,
        read,
        weights=options.extractor_weights,
        allow_weights=options.allow_weights,
        resize=options.resize,
    )
