"""Images from a checkpoint folder alone: what a registered model does when it is called."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from cbdm_scale.pretrained.build import build_network, make_process
from cbdm_scale.pretrained.run_files import check_network, read_saved
from cbdm_scale.sampling.generate import generate, to_uint8
from cbdm_scale.sampling.options import check_trained
from cbdm_scale.storage.folder import Storage

WEIGHTS = "ema.safetensors"


def generate_from_checkpoint(
    folder: str, labels: Sequence[int], seed: int = 0, omega: float | None = None
) -> NDArray[np.uint8]:
    """Images (n, H, W, C) uint8 with the labels (n,), by the run's sampler and guidance.

    ``omega`` is the strength of guidance; None is the run's own, 0 is none.

    ``folder`` holds ema.safetensors and the run's config.json with its "image" entry.
    """
    home = Storage(folder)
    saved, data = read_saved(folder, home.read_bytes("config.json")), home.read_bytes(WEIGHTS)
    check_network(folder, saved, data)
    config, num_classes = saved.config, saved.num_classes
    net = build_network(config, saved)
    net.load_state_dict(load(data))
    y = torch.tensor(list(labels), dtype=torch.int64)
    outside = [label for label in labels if not 0 <= label < num_classes]
    if outside:
        raise ValueError(f"labels {outside} are outside 0..{num_classes - 1}.")
    omega = config.eval.omegas[0] if omega is None else omega
    if not (omega >= 0 and math.isfinite(omega)):
        raise ValueError(f"omega must be finite and not negative, got {omega}. 0 is none.")
    check_trained("guidance_mode", config.eval.guidance_mode, omega, config.loss.strongest)
    x = generate(
        net.eval(),
        torch.arange(len(y)),
        y,
        config=config.sample,
        process=make_process(config),
        shape=(saved.channels, saved.image_size, saved.image_size),
        omega=omega,
        null_label=num_classes,
        seed=seed,
        chunk_size=config.eval.chunk_size,
        guidance_mode=config.eval.guidance_mode,
    )
    return to_uint8(x).permute(0, 2, 3, 1).numpy()
