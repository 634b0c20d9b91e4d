"""Extractors small enough for tests, and images to use them on."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cbdm_scale.metrics.extractors import find_extractor
from cbdm_scale.metrics.features import Features, as_levels


@dataclass(frozen=True)
class TinyExtractor:
    """Seven random features of an image of 3 x 8 x 8, and scores of two classes."""

    fingerprint: str
    name: str = "tiny"
    dim: int = 7

    def __call__(self, x):
        generator = torch.Generator().manual_seed(int(self.fingerprint, 16))
        pool = as_levels(x).flatten(1) / 255 @ torch.randn(192, 7, generator=generator)
        return Features(pool, logits=pool[:, :2], imagenet=None)


@dataclass(frozen=True)
class TinyRecipe:
    seed: int = 0

    @property
    def fingerprint(self):
        return hashlib.sha256(str(self.seed).encode()).hexdigest()[:8]

    def load(self, device):
        return TinyExtractor(self.fingerprint)


def load_extractor(*where, **options):
    """An extractor by its name, loaded here."""
    return find_extractor(*where, **options).load("cpu")


def write_npz(path, n=23, seed=0, change=None):
    """n images of 8 x 8 in the layout of ADM; ``change`` gets the arrays before."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 3
    if change:
        change(images, labels)
    np.savez(path, arr_0=images, arr_1=labels)
    return str(path)


def dinov2_shapes(width, depth):
    """Shapes of the tensors of a DINOv2's file, by name, learnt on 37 x 37 patches."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + 37**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        for name, (rows, columns) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"blocks.{i}.{name}.weight"] = rows, columns
            shapes[f"blocks.{i}.{name}.bias"] = (rows,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (width,)
        for name in ("ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (width,)
    return shapes


def random_inception():
    """Torch-fidelity's network with random weights, which it cannot be asked for."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        return fidelity.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"])
