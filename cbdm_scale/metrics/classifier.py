"""A classifier whose penultimate layer stands in for Inception where there is none.

``data_prep`` trains a small one on the balanced real images and stores it beside the shards;
``python -m cbdm_scale.classify`` stores a ResNet-32. A file says which of them it holds.
Shapes: N = batch, C = channels, H = height, W = width, K = classes.
"""

import json
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cbdm_scale.models.resnet import ResNet32

NUM_FEATURES = 64
LARGEST_SIDE = 32  # larger images are averaged down to this
METADATA = "cbdm_scale.classifier"  # one key only: safetensors writes several in any order
VERSION = 1
RESNET = "resnet32"


def _conv(num_in: int, num_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(num_out), nn.ReLU())


class SmallClassifier(nn.Module):
    """Five convolutions down to about 4 x 4, a mean, 64 features, K logits (200 k weights)."""

    def __init__(self, *, image_channels: int, image_size: int, num_classes: int):
        super().__init__()
        self.image_channels = image_channels
        self.image_size = image_size
        self.num_classes = num_classes
        side = min(image_size, LARGEST_SIDE)
        first, second, third = (2 if side >= least else 1 for least in (32, 8, 16))
        self.convs = nn.Sequential(
            _conv(image_channels, 32, first),
            _conv(32, 64, second),
            _conv(64, 64, 1),
            _conv(64, 96, third),
            _conv(96, 96, 1),
        )
        self.penultimate = nn.Linear(96, NUM_FEATURES)
        self.logits = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate layer: x (N, C, H, W) in [-1, 1] -> (N, 64)."""
        if self.image_size > LARGEST_SIDE:
            x = F.adaptive_avg_pool2d(x, LARGEST_SIDE)
        return F.relu(self.penultimate(self.convs(x).mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and logits (N, K)."""
        features = self.features(x)
        return features, self.logits(features)


Classifier = SmallClassifier | ResNet32
"""Either has ``features`` (N, 64), ``logits``, and says what images it takes."""


def save_classifier(net: Classifier) -> bytes:
    """The classifier as a safetensors file that knows its own configuration."""
    config: dict[str, int | str] = {
        "version": VERSION,
        "image_channels": net.image_channels,
        "image_size": net.image_size,
        "num_classes": net.num_classes,
    }
    if isinstance(net, ResNet32):
        config["network"] = RESNET  # the small one's files never said it
    tensors = {name: v.detach().cpu().contiguous() for name, v in net.state_dict().items()}
    return save(tensors, {METADATA: json.dumps(config)})


def _read_config(data: bytes) -> dict[str, Any]:
    """The configuration in a safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    config: dict[str, Any] = json.loads(header["__metadata__"][METADATA])
    return config


def missing_classifier(path: str) -> ValueError:
    """What to say where the classifier's file is not."""
    return ValueError(
        f"eval.extractor classifier needs {path}, which does not exist. Make it with "
        "`python -m data_prep DATASET`, as the shards beside it were made."
    )


def load_classifier(source: str | Path | bytes, name: str | None = None) -> Classifier:
    """The classifier of a file, or of a file's bytes, ready to be used (eval mode).

    Errors call it ``name``: by default its path.
    """
    again = (
        "Write it again with `python -m data_prep DATASET` (a ResNet-32: `python -m "
        "cbdm_scale.classify`)."
    )
    if isinstance(source, bytes):
        data, name = source, name or "the classifier"
    else:
        name = name or str(source)
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError as error:
            raise missing_classifier(name) from error
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{name} is damaged ({error}). {again}") from error
    try:
        config = _read_config(data)
        version, network = config.pop("version"), config.pop("network", "small")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a classifier of this package. {again}") from error
    if version != VERSION:
        raise ValueError(
            f"{name} has format version {version}; this package reads {VERSION}. {again}"
        )
    if network not in ("small", RESNET):
        raise ValueError(
            f"{name} holds a network {network!r}; this package knows small and {RESNET}. "
            f"{again}"
        )
    try:
        net = ResNet32(**config) if network == RESNET else SmallClassifier(**config)
        net.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} does not fit this package's classifier. {again}") from error
    return net.eval().requires_grad_(False)
