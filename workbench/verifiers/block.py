"""Block verification: the whole chain is judged at once, which keeps more of it than one by one."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree


@method(
    "verifier",
    title="Block verification",
    paper=Paper("Block Verification Accelerates Speculative Decoding", 2024, "2403.10444"),
)
class Block:
    """Keep the longest prefix that a joint test allows: never less than rejection one by one.

    *Idea*: w_i = min(1, w_{i-1} p(x_i)/q(x_i)) carries the slack of likely prefixes on to later
    tokens. Each length i < g is allowed with h_i = S/(S + 1 - w_i), S = sum (w_i p - q)+ at the
    next place; h_g = w_g. The last allowed length is kept, and the next token comes from
    norm((w p - q)+).

    *Cost*: one vector operation a token. *Deviations*: *chosen* tokens are point masses.
    """

    lossless = True
    chains_only = True

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """The law of the kept length and, at each, of the token after it."""
        length = _tested(tree)
        weights, excess = [1.0], []
        tokens = tree.token_ids
        for node in range(length):
            law = _law(tree, p, node)
            excess.append((weights[-1] * p[node] - law).clamp_min(0))
            ratio = float(p[node, tokens[node]] / law[tokens[node]])
            weights.append(min(1.0, weights[-1] * ratio))
        allowed = [_allowed(weights[i], float(excess[i].sum())) for i in range(length)]
        allowed.append(weights[length])
        allowed[0] = 1.0  # keeping nothing is always possible
        stop, refused = [0.0] * (len(tree) + 1), 1.0
        for kept in range(length, -1, -1):
            stop[kept] = refused * allowed[kept]
            refused *= 1.0 - allowed[kept]

        def bonus(row: int) -> torch.Tensor:
            if row >= length:
                return p[row]
            mass = excess[row].sum()
            return excess[row] / mass if mass > 0 else p[row]

        return Verdict(torch.tensor(stop, dtype=p.dtype), bonus, _chances(stop, p.dtype))


def _tested(tree: DraftTree) -> int:
    """Tokens before the first that may not be accepted."""
    if tree.candidate is None:
        return len(tree)
    barred = (~tree.candidate).tolist()
    return barred.index(True) if True in barred else len(tree)


def _law(tree: DraftTree, p: torch.Tensor, node: int) -> torch.Tensor:
    if tree.drawn:
        return tree.probs[node].to(p.dtype)
    return torch.zeros_like(p[node]).index_fill_(0, tree.tokens[node : node + 1], 1.0)


def _allowed(weight: float, excess: float) -> float:
    return 1.0 if excess + 1.0 - weight <= 0 else min(1.0, excess / (excess + 1.0 - weight))


def _chances(stop: list[float], dtype: torch.dtype) -> torch.Tensor:
    """Chance to reach each length given that the one before is reached."""
    reach, chances = sum(stop), []
    for kept in stop[:-1]:
        chances.append((reach - kept) / reach if reach > 0 else 0.0)
        reach -= kept
    return torch.tensor(chances, dtype=dtype).clamp(0, 1)
