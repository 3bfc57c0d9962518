"""Speculative sampling of a chain: accept with min(1, p/q), else draw from the residual."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.laws import chances_of, residual, without
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
        if not len(tree):
            return Verdict.at_root(p)
        tokens = tree.token_ids
        nodes = range(len(tree))
        accept = chances_of(p, nodes, tokens)
        if tree.drawn:
            drawn_with = chances_of(tree.probs.to(p.dtype), nodes, tokens)
            pairs = zip(accept, drawn_with, strict=True)
            accept = [1.0 if of_p >= of_q else of_p / of_q for of_p, of_q in pairs]
        if tree.candidate is not None:
            barred = [*tree.candidate.tolist(), False].index(False)
            accept[barred:] = [0.0] * len(accept[barred:])

        def bonus(row: int) -> torch.Tensor:
            barred = row < len(tree) and tree.candidate is not None and not tree.candidate[row]
            if row == len(tree) or barred:
                return p[row]
            if tree.drawn:
                return residual(p[row], tree.probs[row].to(p.dtype))
            return without(p[row], tokens[row]) if accept[row] else p[row]

        return Verdict.from_accept(tree, torch.tensor(accept, dtype=p.dtype), bonus)
