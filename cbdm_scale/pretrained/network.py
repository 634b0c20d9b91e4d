"""A trained network: its weights, its layers, and what is known of where it comes from.

A configuration decides how much memory its network takes, whoever wrote the file. So it is
compared with the weights that are there, on torch's device without memory, before one number is
allocated.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cbdm_scale.config.presets import PublishedSet
from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.data.class_names import labels_of_names
from cbdm_scale.data.manifest import Manifest, read_manifest
from cbdm_scale.models.backbone import PROJECTION
from cbdm_scale.models.build import build
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import parse_json
from cbdm_scale.storage.remote import split_scheme
from cbdm_scale.storage.wording import clip, shorten

SAMPLES = "~/cbdm_scale/samples"
"""Where sets of images of a network belong that comes without a run."""

LARGEST = {"channels": 1 << 10, "size": 1 << 14, "num_classes": 1 << 24}
"""Of what a file says of its images; more is taken for damage."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What a network must know of its images."""

    channels: int
    image_size: int
    """Height and width in pixels."""
    num_classes: int


def network_spec(config: Config, image: ImageSpec | Manifest | PublishedSet) -> NetworkSpec:
    """The network of a run on such images."""
    return NetworkSpec(
        model=config.model,
        channels=image.channels,
        image_size=image.image_size,
        num_classes=image.num_classes,
        num_steps=config.diffusion.num_steps,
        augment=config.data.conditions_on_augmentation,
        omega_max=config.loss.max_guidance,
    )


@dataclass(frozen=True, kw_only=True)
class PretrainedNetwork:
    """A trained network and what is known of it."""

    url: str
    """What was found: a checkpoint's folder, a file, an address in MLflow."""
    checkpoint: str
    """A short name of it: images shown in training, or what the file is called."""
    tensors: Mapping[str, Tensor]
    """The weights, by the names of ``spec``'s network."""
    weights_sha256: str
    """Of the safetensors file that the weights are."""
    spec: NetworkSpec
    config: Config
    """The run's configuration; of the paper's code, what its file says."""
    fingerprint: str = ""
    """Of the data set that it learnt, "" where nothing says it."""
    class_names: tuple[str, ...] = ()
    """(num_classes,) names, () where nothing says them."""
    samples: str = field(default_factory=lambda: Storage(SAMPLES).url)
    """Folder or URL that its sets of images belong in."""
    folder: str = ""
    """The run's, "" of a network that comes without one."""
    num_seen: int | None = None
    """Images shown in training, where that is known."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def name(self) -> str:
        """The run's name, or else the checkpoint's."""
        return self.folder.rpartition("/")[2] or self.checkpoint

    def names_with(self, real: Manifest | None) -> tuple[str, ...]:
        """Names (K,) of its classes, its own or of the data set; () where nothing says them."""
        return self.class_names or (real.class_names if real else ())

    @property
    def weights(self) -> bytes:
        """The weights as a safetensors file, made anew at each call."""
        return save({name: tensor.contiguous() for name, tensor in self.tensors.items()})

    def build(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network with its weights, for sampling: a ``denoiser.Net``."""
        net = build(self.spec)
        net.load_state_dict(self.tensors)
        return net.to(device).eval().requires_grad_(False)


def read_network(
    where: str, config_json: bytes, weights: bytes, *, url: str, checkpoint: str
) -> PretrainedNetwork:
    """A network from its two files: of a run, an exported folder or a registered model.

    ValueError, beginning with ``where``, if one is damaged or of another version, or if they do
    not belong together.
    """
    try:
        about = parse_json(config_json, "config.json")
        config, image = from_dict(about), about["image"]
        sizes = {name: image[name] for name in LARGEST}
        for name, most in LARGEST.items():
            value = sizes[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
                raise ValueError(f"image.{name} is {value!r}, not one of 1 to {most:,}")
        fingerprint = str(image.get("fingerprint", ""))
        class_names = tuple(map(str, about.get("classes", ())))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{where}: its config.json is damaged or of another version of cbdm_scale "
            f"({clip(repr(error))}). Use the version that trained it."
        ) from error
    size = sizes.pop("size")
    spec = network_spec(config, ImageSpec(image_size=size, **sizes))
    try:
        loaded = load(weights)
    except SafetensorError as error:
        raise ValueError(
            f"{where}: its weights are damaged ({clip(error)}). Copy it again."
        ) from error
    # A layer of training, of which no image is made.
    tensors = {name: t for name, t in loaded.items() if not name.startswith(PROJECTION)}
    _check_shapes(where, spec, tensors)
    return PretrainedNetwork(
        url=url,
        checkpoint=checkpoint,
        tensors=tensors,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        spec=spec,
        config=config,
        fingerprint=fingerprint,
        class_names=class_names,
    )


def _check_shapes(where: str, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> None:
    """ValueError unless these are the weights of the network, and no others."""
    try:
        with torch.device("meta"):
            net = build(spec)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{where}: no network can be built from its config.json ({str(error)[:200]})."
        ) from error
    here = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if here != there:
        name = min(n for n in here | there if here.get(n) != there.get(n))
        raise ValueError(
            f"{where}: its weights are not those of the network in its config.json; "
            f"{clip(name)} is {there.get(name, 'absent')}, and {here.get(name, 'absent')} "
            "there."
        )


def find_training_data(
    pretrained: PretrainedNetwork, data_root: str
) -> tuple[Manifest | None, str]:
    """The data set that it learnt: manifest and root; None and "" where it is not to be had.

    ``data_root`` says where the data set is now; then it must be there, and be the same.
    """
    config = pretrained.config
    if not config.dataset:
        return None, ""
    root = data_root or config.data.root
    if data_root and not split_scheme(root)[0]:
        root = Storage(root).url
    try:
        manifest = read_manifest(root, config.dataset)
    except (ValueError, OSError) as error:
        if data_root:
            raise ValueError(f"data.root: {error}") from error
        return None, ""
    if pretrained.fingerprint and manifest.fingerprint != pretrained.fingerprint:
        if data_root:
            raise ValueError(
                f"data.root ({data_root}): {config.dataset} there has fingerprint "
                f"{manifest.fingerprint}, the run learnt from {pretrained.fingerprint}. Leave "
                "it out, or make the data set as it was."
            )
        return None, ""
    names = pretrained.class_names
    if names and labels_of_names(manifest.class_names, names) != list(range(len(names))):
        if data_root:
            raise ValueError(
                f"data.root ({data_root}): the classes of {config.dataset} there are "
                f"{shorten(manifest.class_names)}, those that the network learnt "
                f"{shorten(names)}, in this order. Give the data set that it learnt from."
            )
        return None, ""
    return manifest, root
