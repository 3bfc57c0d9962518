"""The optimal acceptance by brute force: all token sets, and the transport problem itself."""

from __future__ import annotations

import itertools

import numpy as np
import torch


def draft_tuples(q: list[float], k: int, sampler: str) -> dict[tuple[int, ...], float]:
    """Every ordered k-tuple of siblings with its probability."""
    size, found = len(q), {}
    if sampler == "independent":
        for tokens in itertools.product(range(size), repeat=k):
            found[tokens] = float(np.prod([q[t] for t in tokens]))
    elif sampler == "without_replacement":
        for tokens in itertools.permutations(range(size), k):
            left, chance = 1.0, 1.0
            for token in tokens:
                chance *= q[token] / left if left > 0 else 0.0
                left -= q[token]
            found[tokens] = chance
    else:
        top = tuple(sorted(range(size), key=lambda t: (-q[t], t))[: k - 1])
        rest = 1.0 - sum(q[t] for t in top)
        for token in range(size):
            if token not in top:
                found[(*top, token)] = q[token] / rest
    return {tokens: chance for tokens, chance in found.items() if chance > 0}


def best_by_sets(p: list[float], q: list[float], k: int, sampler: str) -> float:
    """1 + min over all 2^v token sets of P(H) - Q(H)."""
    drafts, least = draft_tuples(q, k, sampler), 0.0
    for bits in itertools.product((False, True), repeat=len(p)):
        mass = sum(x for x, inside in zip(p, bits, strict=True) if inside)
        caught = sum(c for tokens, c in drafts.items() if all(bits[t] for t in tokens))
        least = min(least, mass - caught)
    return 1.0 + least


def best_by_transport(p: list[float], q: list[float], k: int, sampler: str) -> float:
    """The transport problem as a linear program: drafts in, tokens out, cost 1 for a token outside.

    Variables: the joint chance of each (drafts, output) pair.
    """
    from scipy.optimize import linprog

    drafts, size = draft_tuples(q, k, sampler), len(p)
    cost, rows, sums = [], [], []
    for tokens in drafts:
        cost += [0.0 if token in tokens else 1.0 for token in range(size)]
    for place, chance in enumerate(drafts.values()):
        row = np.zeros(len(cost))
        row[place * size : (place + 1) * size] = 1
        rows.append(row)
        sums.append(chance)
    for token in range(size):
        row = np.zeros(len(cost))
        row[token::size] = 1
        rows.append(row)
        sums.append(p[token])
    done = linprog(cost, A_eq=np.array(rows), b_eq=np.array(sums) / 1.0, method="highs")
    assert done.success, done.message
    return 1.0 - float(done.fun)


def random_pair(size: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random laws, softmax of normal logits."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(2, size, generator=generator, dtype=torch.float64) * spread
    p, q = raw.softmax(-1)
    return p, q
