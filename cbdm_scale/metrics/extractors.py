"""Networks that make features, by name: the one place that knows them all.

features.py says what an extractor and its recipe are; classifier.py, inception.py and dinov2.py
are three of them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cbdm_scale.data.manifest import Manifest, dataset_folder
from cbdm_scale.metrics.classifier import class_places, missing_classifier
from cbdm_scale.metrics.features import ClassifierRecipe, Recipe
from cbdm_scale.metrics.options import ExtractorWeights, Resize
from cbdm_scale.storage.checks import check_value
from cbdm_scale.storage.folder import Storage

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
    class_names: Sequence[str] = (),
    weights: str = "",
    allow_weights: bool = False,
    resize: Resize = "bilinear",
) -> Recipe:
    """The recipe of extractor ``name``, its files found and checked.

    ``folder`` is that of the data set, where ``classifier`` lies, and ``class_names`` (K,) its
    classes, whose order a classifier's logits get; () leaves them. ``weights``, ``resize`` and
    ``allow_weights`` are for the networks that others have published.
    """
    check_value("eval.resize", resize, Resize, default="bilinear")
    kind, _, path = name.partition(":")
    if kind == "classifier":
        path = path or f"{folder.rstrip('/')}/classifier.safetensors"
        try:
            data = (read if path.startswith(folder) else _read_local)(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise missing_classifier(path) from error
        where = f"eval.extractor: {path}"
        places = class_places(data, class_names, where) if class_names else []
        in_order = places == list(range(len(places)))
        return ClassifierRecipe(data, path, () if in_order else tuple(places))
    if name == "inception":
        from cbdm_scale.metrics.inception import find_inception

        return find_inception(weights, allow_weights, resize)
    if name == "dinov2":
        from cbdm_scale.metrics.dinov2 import find_dinov2

        return find_dinov2(weights, allow_weights, resize)
    known = ", ".join(EXTRACTORS)
    raise ValueError(f"eval.extractor {name!r} is not known. Choose from: {known}.")


def recipe_of(name: str, options: ExtractorWeights, root: str, manifest: Manifest) -> Recipe:
    """Extractor ``name`` with the weights of ``options``, for a data set below ``root``."""
    folder = Storage(dataset_folder(root, manifest.name))
    return find_extractor(
        name,
        folder.url,
        folder.read_path,
        class_names=manifest.class_names,
        weights=options.extractor_weights,
        allow_weights=options.allow_weights,
        resize=options.resize,
    )


def recipes_of(
    names: Sequence[str], options: ExtractorWeights, root: str, manifest: Manifest
) -> tuple[Recipe, ...]:
    """Several extractors, a feature space each; ValueError where two are the same network."""
    known: dict[str, str] = {}
    found = []
    for name in names:
        if name == "none":
            raise ValueError("extractor none gives no numbers. Try --extractor classifier.")
        with options_without_eval():
            recipe = recipe_of(name, options, root, manifest)
        if other := known.get(recipe.fingerprint):
            raise ValueError(
                f"extractor: {other} and {name} are the same network. Name one of them."
            )
        known[recipe.fingerprint] = name
        found.append(recipe)
    return tuple(found)


@contextmanager
def options_without_eval() -> Iterator[None]:
    """Errors here name options of a run, such as --eval.extractor-weights: as other commands
    have them, --extractor-weights."""
    try:
        yield
    except ValueError as error:
        said = re.sub(r"(?<![\w/])eval\.(?=extractor|allow|resize)", "", str(error))
        raise ValueError(said) from error
