"""The k likeliest experts of every token."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.method import Paper, knob, method
from workbench.core.routing import Own, Routed, heaviest, law

WEIGHTS = ("as trained", "sum to one", "raw")


@method(
    "router",
    title="Top-k",
    paper=Paper("Mixtral of Experts", 2024, "2401.04088", "2.1"),
)
class TopK:
    """Send every token to its k likeliest experts.

    *Idea*: the rule that the released mixtures are trained with: softmax over all experts, then the
    k largest; some families divide the k weights by their sum.

    *Deviations*: none; with both knobs at their defaults the model's own rule, to the last bit.

    *Shapes*: logits ``[t e]`` in, weights and indices ``[t min(k, e)]`` out.

    *Cost*: one softmax and one top-k of ``[t e]``; each token runs k experts.
    """

    k: int = knob(0, low=0, high=64, unit="experts", help="Experts a token; 0 = as trained.")
    weights: str = knob(
        "as trained", choices=WEIGHTS, help="Whether the k weights are made to sum to one."
    )

    def route(self, logits: Float[torch.Tensor, "t e"], own: Own) -> Routed:
        """Weights and indices, heaviest first."""
        k = self.bounds(logits.shape[-1], own)[1]
        return heaviest(law(logits), k, self.sums_to_one(own))

    def sums_to_one(self, own: Own) -> bool:
        return own.normalised if self.weights == "as trained" else self.weights == "sum to one"

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        k = min(self.k or own.k, experts)
        return k, k
