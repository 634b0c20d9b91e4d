"""What a network is: the options of its backbone, and the images that it is made for."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_args

from cbdm_scale.models.options import ModelConfig, check_image_size
from cbdm_scale.storage.checks import Range, check_fields
from cbdm_scale.storage.json import structure

_OfData = Annotated[int, Range(ge=1, hint="Look into dataset.json.")]


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What decides a network's layers: equal specs have weights of equal names and shapes.

    ValueError if the images do not fit the options.
    """

    model: ModelConfig
    channels: _OfData
    """Of an image."""
    image_size: int
    """Height and width in pixels."""
    num_classes: _OfData
    """K."""
    num_steps: int = 1000
    """T: whole-numbered levels lie in 0..T-1."""
    augment: bool = False
    """Whether images come with the nine numbers of ADA."""
    omega_max: float = 0.0
    """The largest guidance strength of its training (TCFG); 0: it has no layer for that."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_image_size(self.model, self.image_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.image_size, self.image_size

    @property
    def null_label(self) -> int:
        """The label that means "none": K, the row after the classes'."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the model's class stands beside its options."""
        return asdict(self) | {"class": type(self.model).__name__}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "NetworkSpec":
        """The inverse of ``to_dict``, also after JSON. KeyError, TypeError or ValueError."""
        classes = {one.__name__: one for one in get_args(ModelConfig)}
        model = structure(classes[tree["class"]], tree["model"], "model")
        plain = {k: v for k, v in tree.items() if k != "class"}
        return cls(**plain | {"model": model})
