"""ResNet-32 for small images, Section 4.2 of He et al., "Deep residual learning" (CVPR 2016).

Shapes: N = batch, C = channels, H = height, W = width, K = classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbdm_scale.diffusion import rng

WIDTHS = 16, 32, 64
BLOCKS = 5  # a width: 6 * 5 + 2 = 32 layers with weights
NUM_FEATURES = 64
SMALLEST_SIDE = 4


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights ("option A" of the paper).

    Where the image shrinks, the shortcut takes every second pixel and adds channels of zeros.
    """

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.stride = 1 if num_in == num_out else 2
        self.more = num_out - num_in
        self.first = nn.Conv2d(num_in, num_out, 3, self.stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(num_out)
        self.second = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(num_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_out, H, W), or half the size where channels are added."""
        residual = F.relu(self.first_norm(self.first(x)))
        residual = self.second_norm(self.second(residual))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            front = self.more // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, front, self.more - front))
        return F.relu(residual + shortcut)


class ResNet32(nn.Module):
    """A convolution, three stages of five blocks, a mean over the image, K logits.

    464,154 weights for 3 channels and 10 classes.
    """

    def __init__(self, *, image_channels: int, image_size: int, num_classes: int):
        super().__init__()
        if image_size < SMALLEST_SIDE:
            raise ValueError(
                f"ResNet-32 halves an image twice: {image_size} pixels are too few, "
                f"{SMALLEST_SIDE} are needed. Make the shards with a larger --resolution."
            )
        self.image_channels = image_channels
        self.image_size = image_size
        self.num_classes = num_classes
        self.stem = nn.Conv2d(image_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        blocks = [
            Block(WIDTHS[stage if i else max(stage - 1, 0)], width)
            for stage, width in enumerate(WIDTHS)
            for i in range(BLOCKS)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.logits = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate layer: x (N, C, H, W) in [-1, 1] -> (N, 64)."""
        h = F.relu(self.stem_norm(self.stem(x)))
        pooled: Tensor = self.blocks(h).mean(dim=(2, 3))
        return pooled

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and logits (N, K)."""
        features = self.features(x)
        return features, self.logits(features)


def init_he(net: nn.Module, generator: torch.Generator) -> None:
    """He's normal weights (He et al., 2015) from ``generator`` alone, zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def new_resnet(
    *, image_channels: int, image_size: int, num_classes: int, seed: int
) -> ResNet32:
    """Fresh weights by the seed alone (He et al., 2015); the global generator stays."""
    generator = torch.Generator().manual_seed(rng.make_key(seed, "recognition/weights")[0])
    with torch.random.fork_rng(devices=[]):
        net = ResNet32(
            image_channels=image_channels, image_size=image_size, num_classes=num_classes
        )
    init_he(net, generator)
    return net.to(memory_format=torch.channels_last)
