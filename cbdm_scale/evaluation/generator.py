"""The images of an evaluation during training, made in memory by all ranks.

Each makes its share; the images are the same for every number of ranks. C, H, W = image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.labels import class_cyclic
from cbdm_scale.diffusion.process import Process
from cbdm_scale.sampling.generate import chunks, generate
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig


@dataclass(frozen=True)
class Generator:
    """Makes the images of a set on this rank: those of its chunks."""

    config: SamplerConfig
    process: Process
    shape: tuple[int, int, int]
    num_classes: int
    seed: int
    device: torch.device
    chunk_size: int
    guidance_mode: GuidanceMode = "cfg"
    on_chunk: Callable[[int], None] = lambda num_images: None
    """Called with the number of images of every chunk that is made."""

    def share(
        self, net: Net, num_images: int, omega: float, rank: int, size: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(numbers (n,), labels (n,), images (n, C, H, W) uint8) of every chunk of a rank."""
        made = []
        labels = class_cyclic(num_images, self.num_classes)
        for part in chunks(num_images, self.chunk_size, rank, size):
            samples, y = part.to(self.device), labels[part].to(self.device)
            x = generate(
                net,
                samples,
                y,
                config=self.config,
                process=self.process,
                shape=self.shape,
                omega=omega,
                null_label=self.num_classes,
                seed=self.seed,
                chunk_size=self.chunk_size,
                guidance_mode=self.guidance_mode,
            )
            made.append((part, labels[part], to_uint8(x).cpu()))
            self.on_chunk(len(part))
        return made
