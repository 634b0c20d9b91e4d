"""A classifier whose penultimate layer stands in for Inception where there is none.

``data_prep`` trains a small one on the balanced real images and stores it beside the shards;
``cbdm classify`` stores a ResNet-32. A file says which of them it holds, and
the names of its classes in the order of its logits.
Shapes: N = batch, C = channels, H = height, W = width, K = classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cbdm_scale.data.class_names import labels_of_names
from cbdm_scale.models.resnet import ResNet32
from cbdm_scale.storage.wording import prog_of, shorten

NUM_FEATURES = 64
LARGEST_SIDE = 32  # larger images are averaged down to this
METADATA = "cbdm_scale.classifier"  # one key only: safetensors writes several in any order
VERSION = 1
RESNET = "resnet32"
AGAIN = "Write it again with `cbdm prepare DATASET` (a ResNet-32: `cbdm classify`)."


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


def save_classifier(net: Classifier, class_names: Sequence[str] = ()) -> bytes:
    """The classifier as a safetensors file that knows its own configuration.

    class_names (K,) in the order of its logits; () where nobody knows them.
    """
    config: dict[str, Any] = {
        "version": VERSION,
        "image_channels": net.image_channels,
        "image_size": net.image_size,
        "num_classes": net.num_classes,
    }
    if isinstance(net, ResNet32):
        config["network"] = RESNET  # the small one's files never said it
    if class_names:
        assert len(class_names) == net.num_classes
        config["class_names"] = list(class_names)
    tensors = {name: v.detach().cpu().contiguous() for name, v in net.state_dict().items()}
    return save(tensors, {METADATA: json.dumps(config)})


def _read(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a file called ``name``; ValueError says what is wrong.

    The configuration is in the header: 8 bytes of its length, then JSON.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{name} is damaged ({error}). {AGAIN}") from error
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        config: dict[str, Any] = json.loads(header["__metadata__"][METADATA])
        version = config.pop("version")
        names, num_classes = config.setdefault("class_names", []), config["num_classes"]
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ValueError("its class_names are no names")
        if names and len(names) != num_classes:
            raise ValueError(f"{len(names)} class_names")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name} is not a classifier of this package. {AGAIN}") from error
    if version != VERSION:
        raise ValueError(
            f"{name} has format version {version}; this package reads {VERSION}. {AGAIN}"
        )
    return tensors, config


def class_places(data: bytes, class_names: Sequence[str], name: str) -> list[int]:
    """Which logit of a classifier's file is that of each of ``class_names`` (K,): (K,).

    By the names in the file; in order where it has none. ValueError names the classes that only
    one side has: the file is called ``name``.
    """
    _, config = _read(data, name)
    own, num_classes = config["class_names"], config["num_classes"]
    way_out = f"Use the classifier that `{prog_of('prepare')}` makes of this data set."
    if not own:
        if num_classes != len(class_names):
            raise ValueError(
                f"{name} knows {num_classes} classes and the data set has "
                f"{len(class_names)}. {way_out}"
            )
        return list(range(num_classes))
    places = labels_of_names(class_names, own)
    lacking = [c for c, place in zip(class_names, places, strict=True) if place is None]
    others = [c for i, c in enumerate(own) if i not in places]
    if lacking or others:
        found = [f"lacks {shorten(lacking)}"] if lacking else []
        found += [f"has {shorten(others)} besides"] if others else []
        raise ValueError(
            f"{name} knows other classes than the data set: it "
            f"{' and '.join(found)}. Label fidelity would be wrong. {way_out}"
        )
    return [place for place in places if place is not None]


def missing_classifier(path: str) -> ValueError:
    """What to say where the classifier's file is not."""
    return ValueError(
        f"eval.extractor classifier needs the file {path}, which does not exist. Type the "
        "command that made the shards beside it again, without --no-classifier; or choose "
        "another extractor, or none: no FID."
    )


def load_classifier(source: str | Path | bytes, name: str | None = None) -> Classifier:
    """The classifier of a file, or of a file's bytes, ready to be used (eval mode).

    Errors call it ``name``: by default its path.
    """
    if isinstance(source, bytes):
        data, name = source, name or "the classifier"
    else:
        name = name or str(source)
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError as error:
            raise missing_classifier(name) from error
    tensors, config = _read(data, name)
    del config["class_names"]
    network = config.pop("network", "small")
    if network not in ("small", RESNET):
        raise ValueError(
            f"{name} holds a network {network!r}; this package knows small and {RESNET}. "
            f"{AGAIN}"
        )
    try:
        net = ResNet32(**config) if network == RESNET else SmallClassifier(**config)
        net.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} does not fit this package's classifier. {AGAIN}") from error
    return net.eval().requires_grad_(False)
