"""Try the siblings one after the other, each against what the earlier ones left of p."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.laws import residual, without
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree, shape_of


@method(
    "verifier",
    title="Multi-round (SpecInfer)",
    paper=Paper(
        "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative"
        " Inference and Verification",
        2024,
        "2305.09781",
        "section 4.3",
    ),
)
class MultiRound:
    """Rejection sampling over a tree: a refused sibling hands the residual to the next one.

    *Idea*: cur = p; for each sibling in draw order accept with min(1, cur(x)/q(x)), else
    cur = norm((cur - q)+); when all are refused draw from cur. Each step is an exact coupling of
    cur with q, so the outcome is exactly p by induction.

    *Deviations*: ``tree.probs`` holds each node's law *given its earlier siblings*, so independent
    siblings and siblings without replacement need no case distinction, and chosen siblings count as
    point masses.

    *Cost*: two vector operations a drawn node.
    """

    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """Walk every row's children once; rows that no path reaches are verified as well."""
        tokens = tree.token_ids
        barred = [False] * len(tree) if tree.candidate is None else (~tree.candidate).tolist()
        accept = torch.zeros(len(tree), dtype=p.dtype)
        left: list[torch.Tensor] = []
        for row, children in enumerate(shape_of(tree.parent).children):
            current, remaining = p[row], 1.0
            for child in children:
                if barred[child]:
                    continue
                chance, current = _try(tree, child, tokens[child], current)
                accept[child] = remaining * chance
                remaining *= 1.0 - chance
            left.append(current)
        return Verdict.from_accept(tree, accept, left.__getitem__)


def _try(tree: DraftTree, node: int, token: int, current: torch.Tensor):
    """Acceptance probability of one sibling and what is left of the law if it is refused."""
    have = float(current[token])
    if not tree.drawn:
        return have, without(current, token)
    law = tree.probs[node].to(current.dtype)
    drawn_with = float(law[token])
    chance = 1.0 if have >= drawn_with else have / drawn_with
    return chance, residual(current, law)
