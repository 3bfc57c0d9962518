"""Stop drafting where the draft's law is flat."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.core.decoding import Budget, Context, DraftStep, Outcome
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree


@method(
    "policy",
    title="Entropy",
    paper=Paper("AdaEDL: Early Draft Stopping for Speculative Decoding", 2024, "2410.18351"),
)
class Entropy:
    """Draft on while 1 - sqrt(scale * H(q)) stays above a threshold.

    *Idea*: the acceptance of one drafted token has a lower bound that falls with the entropy H of
    the draft's law, so a flat law predicts a refusal without any training.

    *Deviations*: a fixed threshold (the paper also adapts it to the recent acceptance); entropy in
    nats at temperature 1; drafters that show no law run to ``depth``.
    """

    threshold: float = knob(
        0.2, low=0.0, high=1.0, step=0.05, help="Stop where the bound falls below this."
    )
    scale: float = knob(0.2, low=0.0, high=1.0, step=0.05, help="Weight of the entropy in nats.")
    depth: int = knob(8, low=1, high=64, unit="tokens", help="Never deeper than this.")
    nodes: int = knob(16, low=1, high=512, unit="nodes", help="Draft tokens scored in one pass.")
    width: int = knob(8, low=1, high=64, unit="tokens", help="Most siblings under one node.")

    def init(self, ctx: Context) -> None:
        return None

    def budget(self, state: None) -> Budget:
        return Budget(self.depth, max(self.nodes, self.depth), self.width)

    def go(self, state: None, steps: Sequence[DraftStep]) -> bool:
        if steps[-1].logits is None:
            return True
        law = steps[-1].logits.float().softmax(-1)
        nats = float(-torch.special.xlogy(law, law).sum())
        return 1 - (self.scale * nats) ** 0.5 >= self.threshold

    def update(self, state: None, tree: DraftTree, outcome: Outcome) -> None:
        return None
