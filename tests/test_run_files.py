"""A config.json decides how much memory its network takes: it is checked before building."""

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from safetensors.torch import save

from cbdm_scale.config.schema import Config
from cbdm_scale.pretrained.build import build_network
from cbdm_scale.pretrained.run_files import SavedNetwork, check_network, read_saved

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


def weights_of(saved: SavedNetwork, **changes: torch.Tensor) -> bytes:
    net = build_network(saved.config, saved)
    return save(net.state_dict() | changes)


def test_the_network_and_its_own_weights_fit() -> None:
    saved = read_saved("here", config_json())
    assert (saved.channels, saved.image_size, saved.num_classes) == (1, 8, 3)
    assert saved.class_names == ("a", "b", "c")
    check_network("here", saved, weights_of(saved))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image__channels": 1 << 40}, "image.channels is 1099511627776, not one of 1 to"),
        ({"image__size": True}, "image.size is True"),
        ({"image__num_classes": 0}, "image.num_classes is 0"),
        ({"image": None}, "of another version"),
        ({"model__channels": "many"}, "model.channels takes a value like"),
        ({"model__multipliers": [1.5, 2]}, "model.multipliers .* whole number"),
        ({"model__num_blocks": 1 << 20}, "model.num_blocks must be from 1 to 256"),
        ({"diffusion__num_steps": 1 << 40}, "diffusion.num_steps"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_built(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^here: its config.json is damaged.*{words}"):
        read_saved("here", config_json(**changes))


@pytest.mark.parametrize(
    "text", [b"", b"[" * 100_000, b"null", b"[]", b"\xff\xfe{}", b"1" * 9999]
)
def test_what_is_no_configuration_is_one_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="^here: its config.json is damaged"):
        read_saved("here", text)


def test_weights_of_another_network_name_the_first_that_differs() -> None:
    saved = read_saved("here", config_json())
    with pytest.raises(ValueError, match=r"head.bias is \(9,\), and \(8,\) there"):
        check_network("here", saved, weights_of(saved, **{"head.bias": torch.zeros(9)}))
    with pytest.raises(ValueError, match="its weights are damaged"):
        check_network("here", saved, b"\xff" * 100)


def test_a_network_that_would_fill_any_memory_is_refused_without_any() -> None:
    """2^20 channels are terabytes; compared with the weights on a device without memory."""
    saved = read_saved("here", config_json())
    large = read_saved("here", config_json(model__channels=1 << 20))
    with pytest.raises(ValueError, match="are not those of the network in its config.json"):
        check_network("here", large, weights_of(saved))
