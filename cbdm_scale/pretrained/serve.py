"""Images from a checkpoint folder alone: what a registered model does when it is called."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.data.guidance_strength import Strength, class_strengths, parse_strength
from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.build import build_process
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork, find_training_data
from cbdm_scale.sampling.options import check_trained
from cbdm_scale.sampling.sampler import CHUNK_SIZE, Sampler
from cbdm_scale.storage.wording import shorten


def generate_from_checkpoint(
    folder: str, labels: Sequence[int], seed: int = 0, omega: Strength | None = None
) -> NDArray[np.uint8]:
    """Images (n, H, W, C) uint8 with the labels (n,), by the run's sampler and guidance.

    ``omega`` is the strength of guidance; None is the run's own, 0 is none.

    ``folder`` holds ema.safetensors and the run's config.json with its "image" entry.
    """
    pretrained = load_pretrained(folder)
    config, spec = pretrained.config, pretrained.spec
    outside = [label for label in labels if not 0 <= label < spec.num_classes]
    if outside:
        raise ValueError(f"labels {shorten(outside)} are outside 0..{spec.num_classes - 1}.")
    y = torch.tensor(list(labels), dtype=torch.int64)
    strength = _strength(pretrained, config.eval.guidance[0] if omega is None else omega, y)
    largest = strength.max().item() if isinstance(strength, Tensor) else strength
    check_trained("guidance_mode", config.eval.guidance_mode, largest, spec.omega_max)
    sampler = Sampler(
        shape=spec.image_shape,
        null_label=spec.null_label,
        process=build_process(config.noise),
        config=config.sample,
        seed=seed,
        chunk_size=config.eval.chunk_size or CHUNK_SIZE,
        guidance_mode=config.eval.guidance_mode,
    )
    x = sampler.generate(pretrained.build(), torch.arange(len(y)), y, strength)
    return to_uint8(x).permute(0, 2, 3, 1).numpy()


def _strength(pretrained: PretrainedNetwork, omega: Strength, y: Tensor) -> float | Tensor:
    """The strength of images with labels y (n,): one number, or (n,)."""
    omega = parse_strength("omega", omega)
    if not isinstance(omega, str):
        return omega
    real, _ = find_training_data(pretrained, "")
    if real is None:
        raise ValueError(
            f"omega: the run's own strength ({omega}) needs the class counts of its data set, "
            f"which is not in {pretrained.config.data.root}. Give a number."
        )
    return torch.tensor(class_strengths("omega", omega, real.groups, real.counts["train"]))[y]
