"""The sum of some terms, with all predictions that they want in one network call.

Shapes: N = images of the batch, n = images of a branch, C, H, W = image, K = classes (label K
means "none").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Noisy, Process
from cbdm_scale.losses.term import Branch, Draws, Predicted, Term, gather


@dataclass(frozen=True)
class Objective:
    """L = the sum of its terms, image by image, under any process."""

    process: Process
    null_label: int  # K
    terms: tuple[Term, ...]

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        """x0 (N, C, H, W) in [-1, 1], y (N,) labels -> name -> (N,) float32, with "total"."""
        noisy = self.process.noisy(x0, draws.t, draws.eps)
        wanted: dict[str, Branch] = {}
        for term in self.terms:
            for name, branch in term.branches(y, draws).items():
                same = wanted.setdefault(name, branch)
                assert len(same.y) == len(branch.y), f"two predictions are called {name}"

        own = Branch(y.masked_fill(draws.dropped, self.null_label))
        e, *further = predict(net, noisy, draws.augment, [own, *wanted.values()])
        named = dict(zip(wanted, further, strict=True))
        predicted = Predicted(x0, y, noisy, draws, self.process, e, named)

        values = [term.values(predicted) for term in self.terms]
        logged = {"total": reduce(torch.add, [v for value in values for v in value.added])}
        for value in values:
            logged |= value.logged
        return logged


def predict(
    net: Net, noisy: Noisy, augment: Tensor | None, branches: Sequence[Branch]
) -> list[Tensor]:
    """The prediction of every branch, (n, C, H, W) each, in float32.

    Branches that share x_t are one batch, so that DDP sees a single graph. The network is given
    omega only if a branch has one; the others' rows then have 0, which is "no omega".
    """

    def of_all(v: Tensor) -> Tensor:
        parts = [gather(v, b.rows) for b in branches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    x, level, y = of_all(noisy.x), of_all(noisy.level), torch.cat([b.y for b in branches])
    augment = None if augment is None else of_all(augment)
    if all(b.omega is None for b in branches):
        out = net(x, level, y, augment=augment)
    else:
        strengths = [x.new_zeros(len(b.y)) if b.omega is None else b.omega for b in branches]
        out = net(x, level, y, omega=torch.cat(strengths), augment=augment)
    return list(out.float().split([len(b.y) for b in branches]))
