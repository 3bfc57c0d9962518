"""What a trace knows of the laws of one round, and the two extremes of what it does not know.

A trace keeps the likeliest tokens of every law and the probabilities of the drafted ones. The rest
of p and the rest of q may lie on the same tokens or on different ones; rules are asked about both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from workbench.core.trace import Round
from workbench.core.tree import DraftTree

LEFT = 1e-6  # mass that counts as nothing


class Laws(NamedTuple):
    """What is known at one row: p by token, its smallest kept top value, q of each child."""

    p: dict[int, float]
    least: float
    q: dict[int, dict[int, float]]


def laws_at(done: Round, kept: list[int], row: int) -> Laws:
    """What the trace knows at ``row`` of p, and of q of those of its children that are kept."""
    top = done.p_top[row]
    p = dict(zip(top.ids, top.probs, strict=True))
    least = min(p.values(), default=1.0)
    children = [node for node in kept if done.parent[node] == row - 1]
    for node in children:
        p[done.tokens[node]] = done.p_node[node]
    q: dict[int, dict[int, float]] = {}
    if done.q_node is not None:
        for node in children:
            law = done.q_top[node] if done.q_top else None
            q[node] = dict(zip(law.ids, law.probs, strict=True)) if law else {}
            q[node][done.tokens[node]] = done.q_node[node]
        _share_siblings(done, children, q)
    return Laws(p, least, q)


def _share_siblings(done: Round, children: list[int], q: dict[int, dict[int, float]]) -> None:
    """Siblings know about each other's tokens: equal laws, or what is left of the one before."""
    if done.drawn == "with_replacement":
        joined = {token: value for node in children for token, value in q[node].items()}
        for node in children:
            q[node] = dict(joined)
        return
    for node, after in reversed(list(pairwise(children))):
        token = done.tokens[node]
        left = 1 - q[node][token]
        for other, value in q[after].items():
            if other != token:
                q[node].setdefault(other, value * left)
    for place, node in enumerate(children):
        for earlier in children[:place]:
            q[node][done.tokens[earlier]] = 0.0


def extremes(
    done: Round, kept: list[int], power: float, size: int, spread: int = 1
) -> Iterator[tuple[DraftTree, torch.Tensor]]:
    """The tree and its laws over the known tokens, for each extreme of what is not known."""
    rows = [0, *(node + 1 for node in kept)]
    laws = {row: laws_at(done, kept, row) for row in rows}
    ids = sorted({token for law in laws.values() for token in law.p} | _drafted(laws))
    weights = (0.0,) if power == 1 else (0.0, 1.0)
    for together in (True, False):
        for weight in weights:
            warm = {row: _at_temperature(law, power, weight, size) for row, law in laws.items()}
            yield _tree(done, kept, laws, warm, ids, together, spread)


def _drafted(laws: dict[int, Laws]) -> set[int]:
    return {token for law in laws.values() for known in law.q.values() for token in known}


def _tree(done, kept, laws, warm, ids, together, spread):
    """One extreme: ``together`` puts both tails on one token; ``warm`` = p and its tail by row."""
    place = {token: index for index, token in enumerate(ids)}
    size = len(ids) + 2 * spread
    p = np.zeros((len(kept) + 1, size))  # filled entry by entry, where numpy is far quicker
    probs = np.zeros((len(kept), size))
    number = {node: index for index, node in enumerate(kept)}
    for index, row in enumerate([0, *(node + 1 for node in kept)]):
        law = laws[row]
        target, tail = warm[row]
        shared = set(target)
        if together:  # whatever one side does not know may overlap: merge it into the tail
            for known in law.q.values():
                shared &= set(known)
            tail += sum(value for token, value in target.items() if token not in shared)
        for token in shared if together else target:
            p[index, place[token]] = target[token]
        p[index, len(ids) : len(ids) + spread] = tail / spread
        for node, known in law.q.items():
            named = {t: v for t, v in known.items() if not together or t in shared}
            for token, value in named.items():
                probs[number[node], place[token]] = value
            rest = max(0.0, 1 - sum(named.values()))
            first = len(ids) if together else len(ids) + spread
            probs[number[node], first : first + spread] = rest / spread
    tree = DraftTree(
        torch.tensor([place[done.tokens[node]] for node in kept], dtype=torch.long),
        tuple(number.get(done.parent[node], -1) for node in kept),
        None if done.q_node is None else _normal(probs),
        with_replacement=done.drawn != "without_replacement",
    )
    return tree, _normal(p)


def _normal(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows / rows.sum(1, keepdims=True))


def _at_temperature(
    law: Laws, power: float, weight: float, size: int
) -> tuple[dict[int, float], float]:
    """p by token and the tail's mass at the new temperature, with the lighter or heavier tail."""
    tail = max(0.0, 1 - sum(law.p.values()))
    if power == 1:
        return dict(law.p), tail
    if math.isinf(power):
        best = max(law.p, key=law.p.__getitem__)
        return {token: float(token == best) for token in law.p}, 0.0
    raised = {token: value**power for token, value in law.p.items()}
    mild = tail * law.least ** (power - 1) if tail > LEFT else 0.0
    far = 0.0
    if power < 1 and tail > LEFT:
        far = max(1, size - len(law.p)) ** (1 - power) * tail**power
    heavy, light = max(mild, far), min(mild, far)
    extra = heavy if weight else light
    total = sum(raised.values()) + extra
    return {token: value / total for token, value in raised.items()}, extra / total
