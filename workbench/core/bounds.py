"""How much of a draft any lossless rule could accept: the optimal acceptance rate and its pictures.

For a way of drawing k siblings, the best chance that the emitted token is one of them is
1 + min over token sets H of P(H) - Q(H), with P(H) the target's mass of H and Q(H) the chance that
all siblings lie in H. The minimum is met by a prefix of the tokens sorted by q/p (descending).

*Paper*: Towards Optimal Multi-draft Speculative Decoding, 2025 (arXiv 2502.18779, sections 3-4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float

from workbench.core.errors import BadInput

SAMPLERS = ("independent", "without_replacement", "top_plus_one")
# Times at which the exponential race is looked at; the card of the method measured 5e-6 with it.
_GRID = 1500


class Bound(NamedTuple):
    """The optimum and the curves it is read from.

    ``order [v]`` = tokens by falling q/p; ``target[i]`` and ``drafts[i]`` = P(H) and Q(H) of the
    first i tokens, ``[v+1]``; ``cut`` = the i where their difference is least.
    """

    rate: float
    order: torch.Tensor
    target: torch.Tensor
    drafts: torch.Tensor
    cut: int


def optimal_acceptance(
    p: Float[torch.Tensor, "v"], q: Float[torch.Tensor, "v"], k: int, sampler: str
) -> float:
    """The most that any lossless rule can accept of k siblings; see :func:`bound`."""
    return bound(p, q, k, sampler).rate


def bound(p: Float[torch.Tensor, "v"], q: Float[torch.Tensor, "v"], k: int, sampler: str) -> Bound:
    """Optimal acceptance of k siblings drawn from q by ``sampler`` against the target p.

    Args:
        sampler: ``independent`` (with replacement), ``without_replacement``, or ``top_plus_one``
            (the k-1 likeliest tokens of q for certain, and one draw of the rest).

    Raises:
        BadInput: an unknown sampler, or k < 1.
    """
    if sampler not in SAMPLERS:
        raise BadInput(f"sampler={sampler!r}: one of {', '.join(SAMPLERS)}")
    if k < 1:
        raise BadInput(f"k={k}: must be 1 or more siblings")
    p, q = p.double() / p.double().sum(), q.double() / q.double().sum()
    if k == 1:
        sampler = "independent"  # one draw is one draw
    if sampler == "without_replacement":
        k = min(k, int((q > 0).sum()))
    proposal, certain = (q, p.new_zeros(0, dtype=torch.long))
    if sampler == "top_plus_one":
        proposal, certain = top_plus_one(q, k)
    order = _by_ratio(p, proposal, certain)
    target = _prefix_sums(p[order])
    drafts = _drafts_inside(q, proposal, certain, order, k, sampler)
    gap = target - drafts
    cut = int(gap.argmin())
    return Bound(min(1.0, max(0.0, 1.0 + float(gap[cut]))), order, target, drafts, cut)


def top_plus_one(q: Float[torch.Tensor, "v"], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The law of the one draw (q without its k-1 likeliest tokens) and those tokens.

    Where the top takes all of q there is nothing to draw, and the law is all zero.
    """
    certain = q.topk(min(k - 1, len(q))).indices
    certain = certain[q[certain] > 0]
    rest = q.clone()
    rest[certain] = 0
    mass = rest.sum()
    return (rest / mass if mass > 0 else rest), certain


def _by_ratio(p: torch.Tensor, q: torch.Tensor, certain: torch.Tensor) -> torch.Tensor:
    """Certain tokens first, then by falling q/p: over-drafted ones early, p = 0 earliest."""
    ratio = torch.where(p > 0, q / p.clamp_min(1e-300), torch.inf)
    ratio = torch.where(q > 0, ratio, -1.0)
    ratio[certain] = torch.inf
    keys = ratio.sort(descending=True, stable=True).indices
    if len(certain):
        first = torch.isin(keys, certain)
        keys = torch.cat((keys[first], keys[~first]))
    return keys


def _prefix_sums(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((x.new_zeros(1), x.cumsum(0)))


def _drafts_inside(q, proposal, certain, order, k, sampler) -> torch.Tensor:
    """Q(H) for every prefix H of ``order``: ``[v+1]``."""
    inside = _prefix_sums(proposal[order]).clamp(0, 1)
    if sampler == "independent":
        return inside**k
    if sampler == "top_plus_one":
        if float(proposal.sum()) == 0:  # all siblings are certain
            inside = torch.ones_like(inside)
        inside[: len(certain)] = 0.0
        return inside
    return _race(q[order], k)


def _race(q: torch.Tensor, k: int) -> torch.Tensor:
    """Chance that the first k arrivals of an exponential race all lie in each prefix, ``[v+1]``.

    Token x arrives at rate q(x); the first k to arrive are k draws without replacement. They lie in
    H when k tokens of H arrive before the first token outside, which happens at rate 1 - q(H).
    """
    times = torch.cat((q.new_zeros(1), torch.logspace(-5, 5, _GRID - 1, dtype=q.dtype)))
    counts = q.new_zeros(k + 1, _GRID)  # chance that j tokens of the prefix have arrived by t
    counts[0] = 1
    inside, values = 0.0, [0.0]
    arrived = -torch.expm1(-q[:, None] * times)
    for place in range(len(q)):
        here = arrived[place]
        fresh = counts * (1 - here)
        fresh[1:] += counts[:-1] * here
        fresh[k] += counts[k] * here
        counts = fresh
        inside += float(q[place])
        outside = max(0.0, 1.0 - inside)
        if outside < 1e-15:
            values += [1.0] * (len(q) - place)
            break
        weights = torch.exp(-outside * times)
        steps = weights[:-1] - weights[1:]
        middle = (counts[k, :-1] + counts[k, 1:]) / 2
        values.append(float((steps * middle).sum() + weights[-1] * counts[k, -1]))
    return torch.tensor(values, dtype=q.dtype)
