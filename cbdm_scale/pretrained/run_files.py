"""A network as a file says it is: checked before anything is built, whoever wrote the file.

A configuration decides how much memory its network takes, so it is compared with the weights
that are there, on torch's device without memory, before one number is allocated.
"""

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.pretrained.build import build_network
from cbdm_scale.storage.json import parse_json

LARGEST = {"channels": 1 << 10, "size": 1 << 14, "num_classes": 1 << 24}
"""Of what a file says of its images; more is taken for damage."""


@dataclass(frozen=True)
class SavedNetwork:
    config: Config
    channels: int
    image_size: int
    num_classes: int
    fingerprint: str
    """Of the data set that it learnt."""
    class_names: tuple[str, ...]


def read_saved(where: str, text: bytes) -> SavedNetwork:
    """The config.json of a run, of an exported folder or of a registered model.

    ValueError if it is damaged, or of another version.
    """
    try:
        about = parse_json(text, "config.json")
        config, image = from_dict(about), about["image"]
        sizes = {name: image[name] for name in LARGEST}
        for name, most in LARGEST.items():
            value = sizes[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
                raise ValueError(f"image.{name} is {value!r}, not one of 1 to {most:,}")
        found = SavedNetwork(
            config,
            channels=sizes["channels"],
            image_size=sizes["size"],
            num_classes=sizes["num_classes"],
            fingerprint=str(image.get("fingerprint", "")),
            class_names=tuple(map(str, about.get("classes", ()))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{where}: its config.json is damaged or of another version of cbdm_scale "
            f"({error!r}). Use the version that trained it."
        ) from error
    return found


def check_network(where: str, saved: SavedNetwork, data: bytes) -> None:
    """ValueError unless a safetensors file holds the weights of the network, and no others."""
    try:
        there = {name: tuple(tensor.shape) for name, tensor in load(data).items()}
    except SafetensorError as error:
        raise ValueError(
            f"{where}: its weights are damaged ({error}). Copy it again."
        ) from error
    try:
        with torch.device("meta"):
            net = build_network(saved.config, saved)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{where}: no network can be built from its config.json ({str(error)[:200]})."
        ) from error
    here = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if here != there:
        name = min(n for n in here | there if here.get(n) != there.get(n))
        raise ValueError(
            f"{where}: its weights are not those of the network in its config.json; {name} is "
            f"{there.get(name, 'absent')}, and {here.get(name, 'absent')} there."
        )
