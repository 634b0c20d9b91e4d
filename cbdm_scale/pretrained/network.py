"""A trained network and what is known of it."""

import hashlib
from dataclasses import dataclass

from cbdm_scale.config.schema import Config

SAMPLES = "~/cbdm_scale/samples"
"""Where sets of images of a network belong that comes without a run."""


@dataclass(frozen=True, kw_only=True)
class PretrainedNetwork:
    """A trained network and what is known of it."""

    url: str
    """What was found: a checkpoint's folder, a file, an address in MLflow."""
    checkpoint: str
    """A short name of it: images shown in training, or what the file is called."""
    weights: bytes
    """A safetensors file."""
    config: Config
    """The run's configuration; of the paper's code, what its file says."""
    channels: int
    image_size: int
    num_classes: int
    augment: bool
    """Whether the network has an embedding of ADA's nine numbers."""
    omega_max: float
    """The largest guidance strength that it is told (TCFG); 0: it has no layer for that."""
    fingerprint: str
    """Of the data set that it learnt, "" where nothing says it."""
    class_names: tuple[str, ...] = ()
    """(num_classes,) names, () where nothing says them."""
    samples: str
    """Folder or URL that its sets of images belong in."""
    folder: str = ""
    """The run's, "" of a network that comes without one."""
    images: int | None = None
    """Images shown in training, where that is known."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def name(self) -> str:
        """The run's name, or else the checkpoint's."""
        return self.folder.rpartition("/")[2] or self.checkpoint

    @property
    def weights_sha256(self) -> str:
        return hashlib.sha256(self.weights).hexdigest()
