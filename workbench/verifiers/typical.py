"""Typical acceptance: keep whatever the target finds plausible. Fast, and not the target's law."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.laws import distinct_children
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree


@method(
    "verifier",
    title="Typical acceptance (lossy)",
    paper=Paper(
        "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
        2024,
        "2401.10774",
        "section 2.3.1",
    ),
)
class Typical:
    """Accept a token whose p exceeds min(eps, alpha exp(-H(p))); the longest such path wins.

    *Idea*: where the target is unsure (high entropy H) many tokens are good enough; the threshold
    falls with exp(-H). **The output is not distributed as the target's**: accepted tokens are those
    that the draft prefers among the plausible ones. At temperature 0 it is greedy verification.

    *Deviations*: the paper always keeps the first token of a step, which the target drew; that
    token is our root, so every node here is tested. Ties in length go to the larger sum of log p.

    *Cost*: one entropy a row.
    """

    lossless = False
    chains_only = False

    eps: float = knob(0.09, low=0.0, high=1.0, step=0.01, help="Above this p always suffices.")
    alpha: float = knob(0.3, low=0.0, high=1.0, step=0.01, help="Scale of the entropy's threshold.")

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """A certain stop: the end of the best path; then the next token is drawn from p."""
        entropy = -torch.special.xlogy(p, p).sum(-1)
        least = (self.alpha * (-entropy).exp()).clamp_max(self.eps).tolist()
        tokens = tree.token_ids
        above = [row + 1 for row in tree.parent]
        have = p[above, tokens].double() if tokens else p.new_zeros(0).double()
        worth = have.log().tolist()
        best, reached = (0, 0.0, 0), {0: (0, 0.0)}
        for row, children in enumerate(distinct_children(tree, tokens)):
            for child in children if row in reached else ():
                if float(have[child]) > least[row]:
                    length, sum_log = reached[row]
                    reached[child + 1] = (length + 1, sum_log + worth[child])
                    best = max(best, (length + 1, sum_log + worth[child], -(child + 1)))
        row = -best[2]
        stop = torch.zeros(len(tree) + 1, dtype=p.dtype)
        stop[row] = 1.0
        accept = torch.zeros(len(tree), dtype=p.dtype)
        accept[tree.path_to(row)] = 1.0
        return Verdict(stop, p.__getitem__, accept)
