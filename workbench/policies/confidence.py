"""Stop drafting after a token that the draft itself was not sure of."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.decoding import Budget, Context, DraftStep, Outcome
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree


@method(
    "policy",
    title="Confidence",
    paper=Paper(
        "Kangaroo: Lossless Self-Speculative Decoding via Double Early Exiting", 2024, "2404.18911"
    ),
)
class Confidence:
    """Draft on while the newest token's own probability is above a threshold.

    *Idea*: what the draft doubts is likely to be refused, and everything after it with it. The
    doubtful token itself is still verified, as its draft is paid for.

    *Paper*: one threshold on the draft's top probability, as in Kangaroo (arXiv 2404.18911) and
    transformers' assisted generation; probabilities are those at temperature 1.

    *Deviations*: drafters that do not say how sure they are run to ``depth``.
    """

    threshold: float = knob(
        0.4, low=0.0, high=1.0, step=0.05, help="Stop after a token less likely than this."
    )
    depth: int = knob(8, low=1, high=64, unit="tokens", help="Never deeper than this.")
    nodes: int = knob(16, low=1, high=512, unit="nodes", help="Draft tokens scored in one pass.")
    width: int = knob(8, low=1, high=64, unit="tokens", help="Most siblings under one node.")

    def init(self, ctx: Context) -> None:
        return None

    def budget(self, state: None) -> Budget:
        return Budget(self.depth, max(self.nodes, self.depth), self.width)

    def go(self, state: None, steps: Sequence[DraftStep]) -> bool:
        step = steps[-1]
        if step.logits is None or step.token is None:
            return True
        return float(step.logits.float().softmax(-1)[step.token]) >= self.threshold

    def update(self, state: None, tree: DraftTree, outcome: Outcome) -> None:
        return None
