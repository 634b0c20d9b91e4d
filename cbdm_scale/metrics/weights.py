"""Files of weights that others publish: where they are looked for, and whether they are them.

The order is --eval.extractor-weights, an environment variable, and torch's folder of downloads,
into which a file is downloaded when none of the three has it.
"""

import hashlib
import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """A file as it was published."""

    file: str
    url: str
    """Empty where it comes with something else and cannot be downloaded by itself."""
    sha256: str


@dataclass(frozen=True)
class Weights:
    """The bytes of a file of weights, and what vouches for them."""

    path: str
    data: bytes
    sha256: str
    known: bool
    """Whether it is a published file. Otherwise the user has allowed it."""

    def fingerprint(self, extractor: str, rule: str) -> str:
        """Of an extractor under a resize rule; a file that nobody published is named in it."""
        digest = hashlib.sha256(f"{extractor} {self.sha256} {rule}".encode()).hexdigest()[:16]
        if self.known:
            return digest
        return f"{digest}-" + "".join(c if c.isalnum() else "_" for c in Path(self.path).name)


def _download_folder() -> Path:
    """Torch's own, so that a file downloaded by another program is found."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(
    extractor: str,
    variable: str,
    published: tuple[Published, ...],
    path: str = "",
    allow: bool = False,
) -> Weights:
    """The weights of an extractor: the first place that names a file decides.

    A file that is none of ``published`` is refused unless ``allow``.
    """
    chosen = path or os.environ.get(variable, "")
    asked_by = "eval.extractor_weights" if path else variable
    if not chosen:
        chosen = str(_downloaded(extractor, variable, published))
        asked_by = "download"
    try:
        data = Path(chosen).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(
            f"{asked_by} ({chosen}) cannot be read: {error.strerror}. "
            f"{_wanted(extractor, variable, published)}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    known = any(found == one.sha256 for one in published)
    if not known and not allow:
        raise ValueError(
            f"{asked_by} ({chosen}) is not a published file of extractor {extractor}: its "
            f"sha256 is {found}. {_wanted(extractor, variable, published)} To use this file "
            "all the same, give --eval.allow-weights: its numbers compare with none but those "
            "of the same file."
        )
    return Weights(chosen, data, found, known)


def _wanted(extractor: str, variable: str, published: tuple[Published, ...]) -> str:
    files = " or ".join(f"{one.file} (sha256 {one.sha256})" for one in published)
    where = f"give its path with --eval.extractor-weights or {variable}"
    return f"Extractor {extractor} needs {files}: {where}."


def _downloaded(extractor: str, variable: str, published: tuple[Published, ...]) -> Path:
    """The published file in torch's folder, downloaded if no program has done so before."""
    import torch

    folder = _download_folder()
    for one in published:
        if (folder / one.file).is_file():
            return folder / one.file
    source = next(one for one in published if one.url)
    target = folder / source.file
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Checked before it gets its name.
        torch.hub.download_url_to_file(source.url, str(target), hash_prefix=source.sha256)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"eval.extractor_weights is not set, and {source.url} cannot be downloaded to "
            f"{folder} ({error}). {_wanted(extractor, variable, published)}"
        ) from error
    return target
