"""Draw the target's own token at each node and walk on where a child carries it."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.laws import chances_of, distinct_children
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree


@method(
    "verifier",
    title="Exact match",
    paper=Paper("SpecInfer (greedy and sample-and-match verification)", 2024, "2305.09781"),
)
class ExactMatch:
    """Emit the target's own draw at every node; the draft only decides which draws were prepared.

    *Idea*: one draw y of p a node; a child that carries y is walked to, otherwise y is emitted and
    the round ends. Every emitted token is a draw of p, whatever the drafter did, so the rule is
    lossless for any draft; it accepts with the total p of the children. At temperature 0 it is
    greedy verification.

    *Cost*: one gather; nothing depends on q.
    """

    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """Accept with p of the node's token at its parent; the bonus excludes the children."""
        if not len(tree):
            return Verdict.at_root(p)
        tokens = tree.token_ids
        children = distinct_children(tree, tokens)
        usable = set(itertools.chain.from_iterable(children))
        chances = chances_of(p, (row + 1 for row in tree.parent), tokens)
        accept = [chance if node in usable else 0.0 for node, chance in enumerate(chances)]

        def bonus(row: int) -> torch.Tensor:
            if not any(chances[child] for child in children[row]):
                return p[row]
            rest = p[row].clone()
            rest[[tokens[child] for child in children[row]]] = 0
            mass = rest.sum()
            return rest / mass if mass > 0 else p[row]

        return Verdict.from_accept(tree, torch.tensor(accept, dtype=p.dtype), bonus)
