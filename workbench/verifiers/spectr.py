"""k-SEQ: independent siblings are tested one by one against p scaled down by a common factor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.errors import Mismatch
from workbench.core.laws import distinct_children, matched
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree, shape_of

BISECTIONS = 60


@method(
    "verifier",
    title="k-SEQ (SpecTr)",
    paper=Paper(
        "SpecTr: Fast Speculative Decoding via Optimal Transport", 2023, "2310.15141", "section 4"
    ),
)
class SpecTr:
    """Accept the first of k independent siblings with p/(rho q), else draw from what that leaves.

    *Idea*: choosing the output given k candidates is optimal transport; one scale rho for all tests
    comes within 1 - 1/e of its optimum without solving it. rho solves 1 - (1 - beta)^k = rho beta,
    beta = sum min(q, p/rho): the residual is then just non-negative.

    *Deviations*: a residual draw that hits a drafted sibling walks on to it, which is exact and is
    what the transport cost counts. Nodes with equal tokens below equal paths are one state, and
    keep their multiplicity. *Chosen* siblings are matched against one draw of p.

    *Cost*: 60 vector operations for each row with children, in double precision.

    *Raises*: Mismatch for siblings drawn without replacement, or from different laws.
    """

    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """One law a state; rows that repeat a state's path have no probability of their own."""
        tokens = tree.token_ids
        accept = torch.zeros(len(tree), dtype=p.dtype)
        left: dict[int, torch.Tensor] = {}
        if not tree.drawn:
            for row, children in enumerate(distinct_children(tree, tokens)):
                chances, left[row] = matched(p[row], tokens, children)
                accept[list(children)] = torch.tensor(chances, dtype=p.dtype)
            return Verdict.from_accept(tree, accept, left.__getitem__)
        if not tree.with_replacement and max(map(len, shape_of(tree.parent).children)) > 1:
            raise Mismatch(
                "verifier='spectr' takes siblings drawn independently, these were drawn without"
                " replacement; choose rsd, or the drafter draft_tree with sampler='sequences'"
            )
        first = _first_of_state(tree, tokens)
        for row, siblings in _children_of_states(tree, first).items():
            left[row] = _test(tree, p[row], tokens, siblings, accept)
        # The walk goes from state to state, so parents are the first rows of their states.
        merged = DraftTree(tree.tokens, tuple(first[above + 1] - 1 for above in tree.parent))
        return Verdict.from_accept(merged, accept, lambda row: left.get(row, p[row]))


def _first_of_state(tree: DraftTree, tokens: Sequence[int]) -> list[int]:
    """For each row the first row with the same tokens from the root on."""
    known: dict[tuple[int, int], int] = {}
    first = [0]
    for node, above in enumerate(tree.parent):
        first.append(known.setdefault((first[above + 1], tokens[node]), node + 1))
    return first


def _children_of_states(tree: DraftTree, first: list[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    barred = None if tree.candidate is None else (~tree.candidate).tolist()
    for node, above in enumerate(tree.parent):
        if not (barred and barred[node]):
            children[first[above + 1]].append(node)
    return children


def _test(tree, p, tokens, children: list[int], accept: torch.Tensor) -> torch.Tensor:
    """Fill ``accept`` for the first child of each token; returns the law where none is met."""
    law, p = tree.probs[children[0]].double(), p.double()
    if not torch.allclose(tree.probs[children].double(), law, atol=1e-9):
        raise Mismatch(
            "verifier='spectr' takes siblings drawn from one law, these have different ones; choose"
            " mdsd_optimal or multi_round"
        )
    rho, beta = scale(p, law, len(children))
    scaled = torch.minimum(law, p / rho)
    met = -math.expm1(len(children) * math.log1p(-beta)) if beta < 1 else 1.0
    rest = (p - scaled * (met / beta if beta > 0 else 0.0)).clamp_min(0)
    mass = float(rest.sum())
    rest = rest / mass if mass > 1e-300 and met < 1 else p
    remaining, chances = 1.0, dict.fromkeys((tokens[c] for c in children), 0.0)
    for child in children:
        token = tokens[child]
        chance = min(1.0, float(scaled[token] / law[token]))
        chances[token] += remaining * chance
        remaining *= 1.0 - chance
    seen: set[int] = set()
    for child in children:
        token = tokens[child]
        if token not in seen:
            accept[child] = chances[token] + remaining * float(rest[token])
            seen.add(token)
    rest = rest.clone()
    rest[list(seen)] = 0
    mass = float(rest.sum())
    return (rest / mass if mass > 0 else p).to(accept.dtype)


def scale(p: torch.Tensor, q: torch.Tensor, k: int) -> tuple[float, float]:
    """rho* in [1, k] and beta(rho*); the upper end of the bracket, so that no residual is negative.

    Args:
        p, q: laws ``[v]`` in double precision.
    """

    def beta(rho: float) -> float:
        return min(1.0, float(torch.minimum(q, p / rho).sum()))

    low, high = 1.0, float(k)
    if k == 1:
        return 1.0, beta(1.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        share = beta(middle)
        if -math.expm1(k * math.log1p(-share)) > middle * share if share < 1 else 1.0 > middle:
            low = middle
        else:
            high = middle
    return high, beta(high)
