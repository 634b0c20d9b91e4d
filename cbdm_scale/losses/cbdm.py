"""Class-balancing regulariser (Equation 4, Algorithm 1).

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes,
T = steps.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from cbdm_scale.diffusion.labels import draw_labels
from cbdm_scale.losses.term import (
    Branch,
    Draws,
    HostDraws,
    Predicted,
    Term,
    Values,
    gather,
    mean_sq,
    scatter,
)


def cbdm_terms(
    e: Tensor, e_alt: Tensor, weight: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The regulariser L_r, the commitment term L_rc and L_r + gamma L_rc of Equation 4.

    e       (M, C, H, W)  net(x_t, t, y), y the label of the image
    e_alt   (M, C, H, W)  net(x_t, t, y'), y' drawn from Y
    weight  (M,)          w(t) = tau * t / T
    Each norm is a mean over (C, H, W). The two values are equal; only the gradients differ.
    """
    r = weight * mean_sq(e - e_alt.detach())
    rc = weight * mean_sq(e.detach() - e_alt)
    return r, rc, r + gamma * rc


@dataclass(frozen=True)
class CBDM(Term):
    """L_r + gamma L_rc, beside L_DM.

    An image whose label was dropped weighs 0. With `reg_share` < 1, e' is predicted for a
    window of that share of the step's batch, whose weight is divided by the share, so that
    the expectation stays.
    """

    num_steps: int  # T; 1 where a step is its own share, as under EDM
    label_probs: Tensor  # (K,) q_Y
    tau: float
    gamma: float
    reg_share: float = 1.0
    purposes: ClassVar = ("other label",)

    def draw(self, host: HostDraws) -> dict[str, NDArray[Any]]:
        """Labels y' ~ q_Y and weights of the images seen (M,); which, if these are not all."""
        rows, seen = host.window(self.reg_share)
        y_alt = draw_labels(self.label_probs, host.uniform["other label"])
        if rows is None:
            return {"y_alt": y_alt, "seen": seen}
        return {"y_alt": y_alt[rows], "seen": seen, "rows": rows}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """e' of the images seen."""
        return {"alt": Branch(draws.term_draws["y_alt"], draws.term_draws.get("rows"))}

    def values(self, predicted: Predicted) -> Values:
        """Equation 4 without L_DM: zero for the images that are not seen."""
        e, drawn = predicted.e, predicted.draws.term_draws
        rows = drawn.get("rows")
        t = gather(predicted.draws.t, rows).float()
        weight = self.tau * t / self.num_steps * drawn["seen"]  # (M,)
        h, h_alt = gather(e, rows), predicted.further["alt"]
        r, rc, pull = (
            scatter(term, rows, len(e)) for term in cbdm_terms(h, h_alt, weight, self.gamma)
        )
        return Values((pull,), {"r": r, "rc": rc})
