"""DINOv2 features (Oquab et al., 2023), which agree better with people than Inception's do
(Stein et al., 2023).

The published networks come with code that torch.hub downloads and runs; torch-fidelity uses
that code and takes no file. Here the transformer is written out, so that a file is enough: ViT
with pre-norm blocks, layer scale and 14 x 14 patches, the normed class token being the feature.
Sizes are read off the file: small, base and large (giant, whose blocks are gated, is refused).
Images become 224 x 224 under the resize rule, then ImageNet's mean and deviation are taken out,
as torch-fidelity does.

Shapes: N = images, T = 1 + 256 tokens, D = features, A = D / 64 heads.
"""

import io
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cbdm_scale.metrics.features import Features, as_levels, full_precision
from cbdm_scale.metrics.options import Resize
from cbdm_scale.metrics.resize import resize
from cbdm_scale.metrics.weights import Published, Weights, find_weights

VARIABLE = "CBDM_SCALE_DINOV2"
SIDE = 224
PATCH = 14
MEAN = 0.485, 0.456, 0.406
DEVIATION = 0.229, 0.224, 0.225


def _published(size: str, sha256: str) -> Published:
    name = f"dinov2_vit{size}14"
    return Published(
        f"{name}_pretrain.pth",
        f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth",
        sha256,
    )


PUBLISHED = (
    # The first is what a download brings: the size of Stein et al.
    _published("l", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
    _published("b", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    _published("s", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
)


@dataclass(frozen=True)
class _DinoExtractor:
    state: dict[str, Tensor]
    """The published file's tensors, on the device."""
    device: torch.device
    rule: Resize
    fingerprint: str
    mean: Tensor
    """(3, 1, 1), as the deviation, on the device."""
    deviation: Tensor

    @property
    def dim(self) -> int:
        return self.state["cls_token"].shape[-1]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        levels = as_levels(x.to(self.device))
        if levels.shape[1] == 1:
            levels = levels.expand(-1, 3, -1, -1)
        with full_precision(self.device):
            inputs = (resize(levels, SIDE, self.rule) / 255 - self.mean) / self.deviation
            return Features(transform(self.state, inputs), logits=None)


def transform(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Normed class token of images (N, 3, 224, 224): (N, D)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps=1e-6)

    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(x, weight, bias, stride=PATCH).flatten(2).mT  # (N, 256, D)
    h = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches], dim=1)  # (N, T, D)
    h = h + _places(state["pos_embed"])
    for i in range(_depth(state)):
        block = f"blocks.{i}"
        qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", h))
        q, k, v = qkv.unflatten(-1, (3, -1, 64)).permute(2, 0, 3, 1, 4)  # 3 x (N, A, T, 64)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + state[f"{block}.ls1.gamma"] * linear(f"{block}.attn.proj", mixed)
        wide = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", h)))
        h = h + state[f"{block}.ls2.gamma"] * linear(f"{block}.mlp.fc2", wide)
    return norm("norm", h[:, 0])


def _depth(state: dict[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def _places(learnt: Tensor) -> Tensor:
    """Position embeddings (1, 1 + M^2, D), learnt on M x M patches, for 16 x 16.

    The published code adds 0.1 to the number of patches before it divides; the scale is that.
    """
    side, patches = round((learnt.shape[1] - 1) ** 0.5), SIDE // PATCH
    if side == patches:
        return learnt
    grid = learnt[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (patches + 0.1) / side
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([learnt[:, :1], grid.flatten(2).mT], dim=1)


@dataclass(frozen=True)
class _DinoRecipe:
    weights: Weights
    rule: Resize

    @property
    def fingerprint(self) -> str:
        return self.weights.fingerprint("dinov2", self.rule)

    def load(self, device: torch.device | str) -> _DinoExtractor:
        device, path = torch.device(device), self.weights.path
        try:
            read = torch.load(io.BytesIO(self.weights.data), "cpu", weights_only=True)
            state = {k: v.to(device, torch.float32) for k, v in read.items()}
            transform(state, torch.zeros(1, 3, SIDE, SIDE, device=device))
        except Exception as error:  # the unpickler raises many kinds
            reason = str(error).strip().partition("\n")[0]
            files = ", ".join(one.file for one in PUBLISHED)
            raise ValueError(
                f"{path} does not hold a DINOv2 network of size small, base or large: "
                f"{reason}. Give --eval.extractor-weights one of the published files: {files}."
            ) from error
        constants = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, DEVIATION))
        return _DinoExtractor(state, device, self.rule, self.fingerprint, *constants)


def find_dinov2(path: str = "", allow: bool = False, rule: Resize = "bilinear") -> _DinoRecipe:
    """The file at ``path``, of CBDM_SCALE_DINOV2, or downloaded."""
    return _DinoRecipe(find_weights("dinov2", VARIABLE, PUBLISHED, path, allow), rule)
