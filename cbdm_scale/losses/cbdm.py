"""Class-balancing regulariser (Equation 4, Algorithm 1).

Shapes: N = batch, M = images that the regulariser sees, C, H, W = image, K = classes,
T = steps.
"""

from dataclasses import dataclass

from torch import Tensor

from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.labels import draw_labels
from cbdm_scale.losses.term import Branch, Draws, Predicted, Values, mean_sq, scatter


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
class CBDM:
    """L_r + gamma L_rc, beside L_DM.

    e' is predicted only for the images that the regulariser sees: not for those whose label
    was dropped, and for a random share of the others if `reg_share` < 1, whose weight is then
    divided by the share, so that the expectation stays.
    """

    num_steps: int  # T; 1 where a step is its own share, as under EDM
    label_probs: Tensor  # (K,) q_Y
    tau: float
    gamma: float
    reg_share: float = 1.0

    def draw(self, seed: int, images: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        """Labels y' ~ q_Y (N,) and the numbers in the batch of the images seen (M,)."""
        y_alt = draw_labels(self.label_probs, rng.uniform(seed, "other label", images)[:, 0])
        chosen = rng.uniform(seed, "regularise", images)[:, 0] < self.reg_share
        rows = (chosen & ~dropped & (self.tau > 0)).nonzero()[:, 0]
        return {"y_alt": y_alt, "rows": rows}

    def branches(self, y: Tensor, draws: Draws) -> dict[str, Branch]:
        """e' of the images seen."""
        rows = draws.term_draws["rows"]
        return {"alt": Branch(draws.term_draws["y_alt"][rows], rows)}

    def values(self, predicted: Predicted) -> Values:
        """Equation 4 without L_DM: zero for the images that are not seen."""
        e, rows = predicted.e, predicted.draws.term_draws["rows"]
        t = predicted.draws.t[rows].float()
        weight = self.tau * t / self.num_steps / self.reg_share  # (M,)
        r, rc, pull = (
            scatter(term, rows, len(e))
            for term in cbdm_terms(e[rows], predicted.further["alt"], weight, self.gamma)
        )
        return Values((pull,), {"r": r, "rc": rc})
