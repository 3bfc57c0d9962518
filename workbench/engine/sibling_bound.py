"""How many of a node's siblings any lossless rule could have kept: the optimum, from a trace.

*Idea*: a rule is judged by how often the emitted token is one of the siblings, on average over
their draws. No rule exceeds the optimal acceptance rate of p and q (``core/bounds.py``). A trace
keeps only the top of both laws, so the optimum lies between two: the unkept masses of p and q on
the same tokens, and on different ones.

*Deviations*: the number of siblings counts as given, also where a beam search decided it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from workbench.core.bounds import optimal_acceptance
from workbench.core.errors import WorkbenchError
from workbench.core.trace import Round
from workbench.engine.known_laws import laws_at

SPREAD = 64  # tokens that an unkept mass of q is split into
CERTAIN = 1 - 1e-6  # a drafted token with this probability was not left to chance


class SiblingBound(NamedTuple):
    """The optimum lies in [low, high], equal where the trace holds both laws whole."""

    low: float
    high: float
    siblings: int


def sibling_bound(done: Round, node: int) -> SiblingBound:
    """The most that any lossless rule keeps of ``node`` and its siblings.

    Tokens that were certain to be drafted are kept with their mass of p. What is drawn once beside
    them adds its overlap with p; what is drawn more often needs the general optimum.

    Raises:
        WorkbenchError: the trace was recorded without laws (record_top=0).
    """
    if not done.p_top:
        raise WorkbenchError("this trace holds no laws; record it with record_top=8")
    row = done.parent[node] + 1
    nodes = [n for n, parent in enumerate(done.parent) if parent == row - 1]
    laws = laws_at(done, nodes, row)
    drawn = nodes if done.drawn == "with_replacement" else _left_to_chance(done, nodes)
    if len(drawn) > 1:
        low, high = _of_several(laws.p, laws.q[drawn[0]], len(drawn), done.drawn)
    else:
        low, high = _overlap(laws.p, laws.q[drawn[0]]) if drawn else (0.0, 0.0)
        certain = sum(laws.p[t] for t in {done.tokens[n] for n in nodes if n not in drawn})
        low, high = low + certain, high + certain
    return SiblingBound(min(low, 1.0), min(high, 1.0), len(nodes))


def _left_to_chance(done: Round, nodes: list[int]) -> list[int]:
    return [] if done.q_node is None else [n for n in nodes if done.q_node[n] < CERTAIN]


def _rest(law: dict[int, float]) -> float:
    return max(0.0, 1 - sum(law.values()))


def _overlap(p: dict[int, float], q: dict[int, float]) -> tuple[float, float]:
    """Sum of min(p, q), the unkept masses apart and together."""
    shared = p.keys() & q.keys()
    known = sum(min(p[token], q[token]) for token in shared)
    rests = (_rest({token: law[token] for token in shared}) for law in (p, q))
    return known, known + min(rests)


def _of_several(
    p: dict[int, float], q: dict[int, float], count: int, drawn: str
) -> tuple[float, float]:
    """The optimum of several draws, between what the worst and the best tails would give.

    Why these are bounds: the optimum is 1 + min over token sets H of P(H) - Q(H), and Q(H) grows
    with the mass in H and when a token of H is split. Merging what is not known of both laws into
    one token leaves fewer sets and the least Q. An unkept mass of q on tokens without p has the
    most: split without end, and splitting it into ``SPREAD`` tokens misses at most the chance that
    two draws would have met in one of these.
    """
    sampler = "independent" if drawn == "with_replacement" else drawn
    shared = sorted(p.keys() & q.keys())
    merged = [[law[token] for token in shared] for law in (p, q)]
    one_p, one_q = (torch.tensor([*x, max(0.0, 1 - sum(x))], dtype=torch.float64) for x in merged)
    high = optimal_acceptance(one_p, one_q, count, sampler)
    known, tail = sorted({*p, *q}), _rest(q)
    named = [[law.get(token, 0.0) for token in known] for law in (p, q)]
    apart_p = torch.tensor([*named[0], *[0.0] * SPREAD, _rest(p)], dtype=torch.float64)
    apart_q = torch.tensor([*named[1], *[tail / SPREAD] * SPREAD, 0.0], dtype=torch.float64)
    low = optimal_acceptance(apart_p, apart_q, count, sampler)
    meeting = count * (count - 1) / 2 * tail**2 / SPREAD if sampler != "independent" else 0.0
    return max(0.0, low - meeting), high
