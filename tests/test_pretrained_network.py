"""A config.json decides how much memory its network takes: it is checked before building."""

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save

from cbdm_scale.config.schema import Config, from_dict
from cbdm_scale.models.build import build
from cbdm_scale.pretrained.network import PretrainedNetwork, network_spec, read_network

IMAGE = {"channels": 1, "size": 8, "num_classes": 3, "fingerprint": "f"}


def config_json(**changes: Any) -> bytes:
    about = asdict(Config()) | {"image": dict(IMAGE), "classes": ["a", "b", "c"]}
    about["model"] |= {"channels": 8, "groups": 4, "multipliers": [1, 2], "num_blocks": 1}
    for path, value in changes.items():
        *way, last = path.split("__")
        place = about
        for key in way:
            place = place[key]
        place[last] = value
    return json.dumps(about).encode()


def weights_of(config: bytes, **changes: torch.Tensor) -> bytes:
    image = SimpleNamespace(channels=1, image_size=8, num_classes=3)
    net = build(network_spec(from_dict(json.loads(config)), image))
    return save(net.state_dict() | changes)


def read(config: bytes, weights: bytes) -> PretrainedNetwork:
    return read_network("here", config, weights, url="there", checkpoint="it")


def test_the_network_and_its_own_weights_fit() -> None:
    weights = weights_of(config_json())
    found = read(config_json(), weights)
    assert found.spec.image_shape == (1, 8, 8) and found.spec.num_classes == 3
    assert found.class_names == ("a", "b", "c") and found.fingerprint == "f"
    assert found.weights == weights, "the file that was read, byte for byte"
    for name, tensor in found.build().state_dict().items():
        assert torch.equal(tensor, found.tensors[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image__channels": 1 << 40}, "image.channels is 1099511627776, not one of 1 to"),
        ({"image__size": True}, "image.size is True"),
        ({"image__num_classes": 0}, "image.num_classes is 0"),
        ({"image": None}, "of another version"),
        ({"model__channels": "many"}, "model.channels takes a whole number"),
        ({"model__multipliers": [1.5, 2]}, "model.multipliers .* whole number"),
        ({"model__num_blocks": 1 << 20}, "model.num_blocks must be from 1 to 256"),
        ({"diffusion__num_steps": 1 << 40}, "diffusion.num_steps"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_built(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^here: its config.json is damaged.*{words}"):
        read(config_json(**changes), b"")


@pytest.mark.parametrize(
    "text", [b"", b"[" * 100_000, b"null", b"[]", b"\xff\xfe{}", b"1" * 9999]
)
def test_what_is_no_configuration_is_one_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="^here: its config.json is damaged"):
        read(text, b"")


def test_weights_of_another_network_name_the_first_that_differs() -> None:
    config = config_json()
    with pytest.raises(ValueError, match=r"head.bias is \(9,\), and \(8,\) there"):
        read(config, weights_of(config, **{"head.bias": torch.zeros(9)}))
    with pytest.raises(ValueError, match="its weights are damaged"):
        read(config, b"\xff" * 100)


def test_a_network_that_would_fill_any_memory_is_refused_without_any() -> None:
    """2^20 channels are terabytes; compared with the weights on a device without memory."""
    with pytest.raises(ValueError, match="are not those of the network in its config.json"):
        read(config_json(model__channels=1 << 20), weights_of(config_json()))
