"""The denoiser as a program of torch.export: one file that runs without this package.

DDPM    eps(x, t, y[, omega])      noise in x_t at steps t
EDM     D(x, sigma, y[, omega])    Equation 7 of Karras et al., 2022: the image in x

Nothing in the file is a pickle: example inputs, which would be one, are left out.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from cbdm_scale.diffusion.edm import scaling
from cbdm_scale.diffusion.schedule import expand_as
from cbdm_scale.pretrained.network import PretrainedNetwork

MOST = 1 << 16
"""Largest batch of the program."""

TOLERANCE = 1e-5
"""Largest difference from the network as it was, for images and noise of about unit size."""

EXAMPLES = 1, 3
"""Batches of the check."""


class Denoiser(nn.Module):
    """The network, and what EDM has around it; inputs in the order of their names."""

    def __init__(self, net: nn.Module, pretrained: PretrainedNetwork):
        super().__init__()
        self.net, self.omega = net, pretrained.spec.omega_max > 0
        self.sigma_data = (
            pretrained.config.edm.sigma_data if pretrained.config.process == "edm" else 0.0
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in their order."""
        level = "sigma" if self.sigma_data else "t"
        return ("x", level, "y", *(("omega",) if self.omega else ()))

    def forward(
        self, x: Tensor, level: Tensor, y: Tensor, omega: Tensor | None = None
    ) -> Tensor:
        """x (N, C, H, W), level, y and omega (N,): eps of DDPM, D of EDM, (N, C, H, W)."""
        if not self.sigma_data:
            out: Tensor = self.net(x, level, y, omega)
            return out
        c = scaling(level, self.sigma_data)
        c_noise, scaled = c.c_noise.to(x.dtype), expand_as(c.c_in, x).to(x.dtype) * x
        answer: Tensor = self.net(scaled, c_noise, y, omega)
        return (expand_as(c.c_skip, x) * x + expand_as(c.c_out, x) * answer).to(x.dtype)


def examples(
    denoiser: Denoiser, pretrained: PretrainedNetwork, count: int
) -> tuple[Tensor, ...]:
    """Inputs for so many images: steps from first to last, every label, "none" among them."""
    generator = torch.Generator().manual_seed(count)
    share, none = torch.linspace(0.01, 0.99, count), pretrained.spec.num_classes
    y = torch.arange(count) % (none + 1)
    y[-1] = none
    sigma = (8 * share - 5).exp()  # 0.007 to 20
    steps = (share * pretrained.config.diffusion.num_steps).long()
    x = torch.randn(count, *pretrained.spec.image_shape, generator=generator)
    if denoiser.sigma_data:
        x = x * (sigma.square() + denoiser.sigma_data**2).sqrt().reshape(-1, 1, 1, 1)
    level = sigma if denoiser.sigma_data else steps
    omega = (share * pretrained.spec.omega_max,) if denoiser.omega else ()
    return (x, level, y, *omega)


def write_program(pretrained: PretrainedNetwork, file: Path) -> list[str]:
    """Write the file and read it back; lines about it, for people.

    ValueError if the network cannot be made a program, or if that computes something else.
    """
    denoiser = Denoiser(pretrained.build(), pretrained).eval()
    batch = torch.export.Dim("batch", min=1, max=MOST)
    example = examples(denoiser, pretrained, max(EXAMPLES))
    try:
        program = torch.export.export(
            denoiser, example, dynamic_shapes=tuple({0: batch} for _ in example)
        )
    except Exception as error:  # of torch's compiler, which has many kinds
        words = " ".join(str(error).split())[:300]
        raise ValueError(
            f"torch.export makes no program of a {type(denoiser.net).__name__}: {words} ... "
            "Leave --program out."
        ) from error
    program.example_inputs = None  # they would be a pickle
    torch.export.save(program, file)
    differs = check_program(pretrained, denoiser, file)
    call = f"torch.export.load({file.name!r}).module()({', '.join(denoiser.inputs)})"
    version = torch.__version__.partition("+")[0]
    return [
        f"`{call}` with torch {version} alone: {meaning(denoiser, pretrained)}",
        f"checked: read back, it differs by {differs:.1g} from the network for "
        f"{' and '.join(map(str, EXAMPLES))} images; torch.export.load can run code of a file "
        "from somebody whom you do not trust",
    ]


def meaning(denoiser: Denoiser, pretrained: PretrainedNetwork) -> str:
    """The inputs and the output, in words."""
    size = ", ".join(map(str, pretrained.spec.image_shape))
    none = pretrained.spec.num_classes
    words = f"x float32 (N, {size}), "
    if denoiser.sigma_data:
        words += (
            "an image in [-1, 1] plus sigma times standard normal noise; sigma float32 (N,); "
        )
        found = "the denoised image D(x; sigma, y)"
    else:
        steps = pretrained.config.diffusion.num_steps
        words += f"x_t of an image in [-1, 1]; t int64 (N,) in 0..{steps - 1}; "
        found = "the noise eps predicted in x_t"
    words += f"y int64 (N,), labels in 0..{none - 1} or {none} for none; "
    if denoiser.omega:
        most = pretrained.spec.omega_max
        words += f"omega float32 (N,), guidance strengths in 0..{most:g}, 0 for none; "
    return f"{words}gives {found}, float32 as x"


def check_program(pretrained: PretrainedNetwork, denoiser: Denoiser, file: Path) -> float:
    """The largest difference of what was written; ValueError above ``TOLERANCE``."""
    again, largest = torch.export.load(file).module(), 0.0
    for count in EXAMPLES:
        inputs = examples(denoiser, pretrained, count)
        with torch.no_grad():
            ours, theirs = denoiser(*inputs), again(*inputs)
        largest = max(largest, float((ours - theirs).abs().max()))
    if not largest < TOLERANCE:
        raise ValueError(
            f"{file} computes something else than the network: it differs by {largest:.2g}, "
            f"more than {TOLERANCE:g}. Please report it; the file is not to be used."
        )
    return largest
