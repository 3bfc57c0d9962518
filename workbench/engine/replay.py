"""Ask a recorded round what another verification rule would have done; no model needed.

A trace keeps the top of every law. Replay works on a small vocabulary: the stored tokens plus
one *rest* token that holds the mass that was not kept. What it gives is exact where the stored tops
hold all the mass, and says how much they miss otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from workbench.core.errors import Mismatch, WorkbenchError
from workbench.core.method import methods
from workbench.core.trace import Round, Top
from workbench.core.tree import DraftTree


class Siblings(NamedTuple):
    """The children of one row over a small vocabulary: ``laws [c v]``, p ``[v]``, rest id last."""

    nodes: list[int]
    tree: DraftTree
    p: torch.Tensor
    missing: float  # mass of p (or q) that the trace did not keep


def _spread(top: Top, places: dict[int, int], extra: dict[int, float]) -> torch.Tensor:
    law = torch.zeros(len(places) + 1, dtype=torch.float64)
    for token, value in {**extra, **dict(zip(top.ids, top.probs, strict=True))}.items():
        law[places[token]] = value
    law[-1] = (1 - law.sum()).clamp_min(0)
    return law / law.sum()


def siblings_of(done: Round, row: int) -> Siblings:
    """The one-level tree below ``row`` (0 = root) rebuilt from what the trace kept.

    Raises:
        WorkbenchError: the trace was recorded without laws (record_top=0).
    """
    if not done.p_top:
        raise WorkbenchError("this trace holds no laws; record it with record_top=8")
    nodes = [n for n, parent in enumerate(done.parent) if parent == row - 1]
    p_extra = {done.tokens[n]: done.p_node[n] for n in nodes}
    ids = {*done.p_top[row].ids, *p_extra}
    for n in nodes:
        ids.update(done.q_top[n].ids if done.q_top else ())
    places = {token: place for place, token in enumerate(sorted(ids))}
    p = _spread(done.p_top[row], places, p_extra)
    probs = None
    if done.q_node is not None and done.q_top and nodes:
        probs = torch.stack(
            [_spread(done.q_top[n], places, _drawn_beside(done, nodes, n)) for n in nodes]
        )
    tokens = torch.tensor([places[done.tokens[n]] for n in nodes], dtype=torch.long)
    missing = float(p[-1]) if probs is None else max(float(p[-1]), float(probs[:, -1].max()))
    tree = DraftTree(
        tokens,
        (-1,) * len(nodes),
        probs,
        with_replacement=done.drawn != "without_replacement",
    )
    return Siblings(nodes, tree, p, missing)


def _drawn_beside(done: Round, nodes: list[int], node: int) -> dict[int, float]:
    """What is known of the law of ``node`` beyond its top: its own token's q, and that of siblings.

    Siblings drawn with replacement from one law tell of the same law; without them each would get a
    slightly different one, and rules for siblings of one law would refuse what they were made for.
    """
    assert done.q_node is not None
    same = done.drawn == "with_replacement"
    beside = [m for m in nodes if m == node or (same and done.q_top[m] == done.q_top[node])]
    return {done.tokens[m]: done.q_node[m] for m in beside}


def acceptance_by_law(done: Round, node: int) -> dict[str, float]:
    """For each lossless verifier's title: the chance that the walk moves on to ``node``.

    The siblings and the laws are those of the round; "any sibling" rows tell how likely it is that
    one of them is accepted, which is what a rule is judged by. Rules that take one chain only are
    asked where the node has no sibling.
    """
    row = done.parent[node] + 1
    family = siblings_of(done, row)
    place = family.nodes.index(node)
    found: dict[str, float] = {}
    laws = family.p[None].expand(len(family.nodes) + 1, -1)
    for card in methods("verifier"):
        verifier = card.make()
        if not verifier.lossless or (verifier.chains_only and len(family.nodes) > 1):
            continue
        try:
            accept = verifier.verify(family.tree, laws).accept
        except Mismatch:  # siblings that this rule was not made for
            continue
        found[card.title] = float(accept[place])
    return found


def overlap(done: Round, node: int) -> float | None:
    """Sum min(p, q) at the node's parent: the most one drawn token can be accepted with.

    None where the token was chosen, not drawn. The unkept mass counts as overlapping, so this is an
    upper bound by at most ``Siblings.missing``.
    """
    row = done.parent[node] + 1
    family = siblings_of(done, row)
    if family.tree.probs is None:
        return None
    q = family.tree.probs[family.nodes.index(node)]
    return float(torch.minimum(family.p, q).sum())
