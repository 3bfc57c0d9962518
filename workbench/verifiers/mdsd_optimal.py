"""The optimal rule for the top tokens plus one draw: it reaches the bound of its sampler."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.errors import Mismatch
from workbench.core.laws import distinct_children, matched, one_hot_rows, residual
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree


@method(
    "verifier",
    title="Optimal for top-k plus one draw",
    paper=Paper("Towards Optimal Multi-draft Speculative Decoding", 2025, "2502.18779"),
)
class MdsdOptimal:
    """Reject the one drawn sibling as in a chain; a residual draw may hit the certain ones.

    *Idea*: with the k-1 likeliest draft tokens certain and one z drawn from the rest of q, plain
    rejection of z is exact, and the residual keeps all of p on the certain tokens, so the chance to
    meet a sibling is p(top) + sum over the rest of min(p, q_rest): the optimum for this sampler.

    *Deviations*: certain siblings without a drawn one are matched against one draw of p (also the
    optimum); which sampler was used is read from the laws of the siblings.

    *Cost*: one vector operation a row. *Raises*: Mismatch for two drawn siblings under one node.
    """

    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """Accept = chance that the row's output is the child's token."""
        tokens, certain = tree.token_ids, one_hot_rows(tree)
        accept = torch.zeros(len(tree), dtype=p.dtype)
        left: list[torch.Tensor] = []
        for row, children in enumerate(distinct_children(tree, tokens)):
            drawn = [child for child in children if not certain[child]]
            if len(drawn) > 1:
                raise Mismatch(
                    "verifier='mdsd_optimal' takes certain siblings and at most one drawn one, here"
                    f" are {len(drawn)} drawn; choose multi_round, or the drafter draft_tree with"
                    " sampler='greedy_top'"
                )
            output, chance = p[row], 0.0
            if drawn:
                law = tree.probs[drawn[0]].to(p.dtype)
                have, drawn_with = float(output[tokens[drawn[0]]]), float(law[tokens[drawn[0]]])
                chance = 1.0 if have >= drawn_with else have / drawn_with
                output = residual(output, law)
            chances, rest = matched(output, tokens, children)
            for child, hit in zip(children, chances, strict=True):
                accept[child] = (1.0 - chance) * hit + (chance if child in drawn else 0.0)
            left.append(rest)
        return Verdict.from_accept(tree, accept, left.__getitem__)
