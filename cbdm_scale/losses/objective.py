"""The sum of some terms, with all predictions that they want in one network call.

Shapes: N = images of the batch, n = images of a branch, C, H, W = image, K = classes (label K
means "none").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.diffusion.process import Noisy, Process
from cbdm_scale.losses.term import OWN, Branch, Draws, Predicted, Term, gather


@dataclass(frozen=True)
class Objective:
    """L = the sum of its terms, image by image, under any process."""

    process: Process
    null_label: int  # K
    terms: tuple[Term, ...]

    def __call__(self, net: Net, x0: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        """x0 (N, C, H, W) in [-1, 1], y (N,) labels -> name -> (N,) float32, with "total"."""
        noisy = self.process.noisy(x0, draws.t, draws.eps)
        wanted = {OWN: Branch(y.masked_fill(draws.dropped, self.null_label))}
        for term in self.terms:
            for name, branch in term.branches(y, draws).items():
                same = wanted.setdefault(name, branch)
                assert len(same.y) == len(branch.y), f"two predictions are called {name}"
                if branch.features:
                    wanted[name] = same = replace(same, features=True)
                if name == OWN and branch.omega is not None:
                    wanted[name] = replace(same, omega=branch.omega)

        e, *more = predict(net, noisy, draws.augment, [*wanted.values()])
        further = dict(zip(wanted, e, strict=True))
        features = [dict(zip(wanted, of_all, strict=True)) for of_all in more]
        own = further.pop(OWN)
        predicted = Predicted(x0, y, noisy, draws, self.process, own, further, *features)

        values = [term.values(predicted) for term in self.terms]
        logged = {"total": reduce(torch.add, [v for value in values for v in value.added])}
        for value in values:
            logged |= value.logged
        return logged


def predict(
    net: Net, noisy: Noisy, augment: Tensor | None, branches: Sequence[Branch]
) -> list[Sequence[Tensor]]:
    """The prediction of every branch, (n, C, H, W) each, in float32.

    If a branch wants features, those of every branch (n, D, L) are second, and what a
    projection makes of them (n, width) third. Branches that share x_t are one batch, so that
    DDP sees a single graph. The network is given omega only if a branch has one; the others'
    rows then have 0, which is "no omega".
    """

    def of_all(v: Tensor) -> Tensor:
        parts = [gather(v, b.rows) for b in branches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    x, level, y = of_all(noisy.x), of_all(noisy.level), torch.cat([b.y for b in branches])
    asked: dict[str, Any] = {"augment": None if augment is None else of_all(augment)}
    if any(b.omega is not None for b in branches):
        strengths = [x.new_zeros(len(b.y)) if b.omega is None else b.omega for b in branches]
        asked["omega"] = torch.cat(strengths)
    if any(b.features for b in branches):
        asked["features"] = True
    out: Tensor | tuple[Tensor, ...] = net(x, level, y, **asked)
    parts = (out,) if isinstance(out, Tensor) else out
    return [part.float().split([len(b.y) for b in branches]) for part in parts]
