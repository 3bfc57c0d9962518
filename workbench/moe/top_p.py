"""Dynamic routing: as many experts as the router needs to be sure."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.losses import router_entropy
from workbench.core.method import Paper, knob, method
from workbench.core.routing import Own, Routed, crossing, law, padded

WEIGHTS = ("raw", "sum to one", "as trained")


@method(
    "router",
    title="Top-p (dynamic experts)",
    paper=Paper("Harder Tasks Need More Experts", 2024, "2403.07652", "2.2"),
)
class TopP:
    """Send every token to the fewest experts whose probabilities exceed p together.

    *Idea*: a token whose router is sure runs one expert, one whose router hesitates runs several.
    Trained with an entropy loss (minimised), which keeps the router from staying flat, and with the
    balance loss over the sets that were really chosen.

    *Deviations*: probabilities in float32 (the released code uses the model's dtype). The entropy
    counts 1e-2 where the paper has 1e-4, which acts over ten thousand steps and more; 5e-2 can
    leave one expert to all. The paper's model has experts in every second layer, here they are
    where the model has them. On a model trained with top-k this is another rule than the paper's,
    whose model is trained with it; for families that normalise their weights choose ``sum to
    one``.

    *Shapes*: logits ``[t e]`` in, weights and indices ``[t w]`` out, w = the largest set; smaller
    ones are padded with weight 0.

    *Cost*: one softmax and one sort of ``[t e]``, and one wait for the width. Padding is computed:
    a pass runs t·w choices, though it reads no more experts than the sets name.
    """

    p: float = knob(0.4, low=0.0, high=1.0, step=0.01, help="Probability to exceed; 1 = all.")
    weights: str = knob("raw", choices=WEIGHTS, help="Raw probabilities (paper), or sum to one.")
    entropy_weight: float = knob(
        1e-2, low=0.0, high=1.0, step=1e-3, help="Of the entropy loss in training."
    )

    def route(self, logits: Float[torch.Tensor, "t e"], own: Own) -> Routed:
        """The crossing expert included, so that no token is left without one."""
        probs, indices = torch.topk(law(logits), logits.shape[-1], dim=-1)
        weights, indices = padded(Routed(probs, indices), crossing(probs, self.p))
        if self.sums_to_one(own):
            weights = weights / weights.sum(-1, keepdim=True)
        return Routed(weights, indices)

    def sums_to_one(self, own: Own) -> bool:
        return own.normalised if self.weights == "as trained" else self.weights == "sum to one"

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        return 1, experts

    def loss(self, logits: Float[torch.Tensor, "t e"]) -> torch.Tensor:
        """What training adds for one layer beside the balance loss: the weighted entropy."""
        return self.entropy_weight * router_entropy(logits)
