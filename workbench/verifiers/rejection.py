"""Speculative sampling of a chain: accept with min(1, p/q), else draw from the residual."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.laws import residual, without
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree


@method(
    "verifier",
    title="Rejection sampling",
    paper=Paper(
        "Fast Inference from Transformers via Speculative Decoding",
        2023,
        "2211.17192",
        "algorithm 1, appendix A.1",
    ),
)
class Rejection:
    """The original lossless rule for one drafted chain.

    *Idea*: accept x with min(1, p(x)/q(x)); after the first rejection draw from norm((p-q)+). The
    two parts add up to p. A *chosen* token has q = 1, so it is accepted with p(x).

    *Paper*: arXiv 2211.17192 and 2302.01318.
    """

    lossless = True
    chains_only = True

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """One acceptance probability a node; the bonus law is the residual, or p at the end."""
        tokens = tree.tokens.tolist()
        at_node = p[torch.arange(len(tree)), tree.tokens].cpu()
        if tree.drawn:
            drawn_with = tree.probs[torch.arange(len(tree)), tree.tokens].to(p.dtype).cpu()
            accept = torch.where(at_node >= drawn_with, 1.0, at_node / drawn_with).to(p.dtype)
        else:
            accept = at_node
        if tree.candidate is not None:
            first_barred = (~tree.candidate).cpu().to(torch.int64).cumsum(0) > 0
            accept = accept.masked_fill(first_barred, 0.0)

        def bonus(row: int) -> torch.Tensor:
            barred = row < len(tree) and tree.candidate is not None and not tree.candidate[row]
            if row == len(tree) or barred:
                return p[row]
            if tree.drawn:
                return residual(p[row], tree.probs[row].to(p.dtype))
            return without(p[row], tokens[row])

        return Verdict.from_accept(tree, accept, bonus)
