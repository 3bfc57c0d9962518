"""What a round tells of its laws and its tree, as numbers: read from a device all at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from workbench.core.laws import chances_of
from workbench.core.sampling import Sampling
from workbench.core.trace import Top
from workbench.core.transfer import brought, sent
from workbench.core.tree import DraftTree
from workbench.models.native.laws import entropies, largest


class Seen(NamedTuple):
    """Numbers of a round, the laws of the target apart.

    Args:
        p: laws of the target, where they were made.
        p_bits, q_bits: entropies of target and draft.
        p_node, q_node: what both gave each drafted token; the draft None where nothing was drawn.
        p_top, q_top: the likeliest tokens of each law.
        score: of the tree, if it has any.

    Shapes: p ``[n+1 v]``; p_bits, p_top ``[n+1]``; the others ``[n]``, q_bits and q_top empty where
    nothing was drawn.
    """

    p: torch.Tensor
    p_bits: list[float]
    p_node: list[float]
    q_node: list[float] | None
    p_top: list[Top]
    q_top: list[Top]
    q_bits: list[float]
    score: list[float] | None


def seen_of(tree: DraftTree, p: torch.Tensor, p_bits: list[float], count: int) -> Seen:
    """The numbers of laws ``[n+1 v]`` with their entropies; ``count`` likeliest tokens of each."""
    p_node, q_node = drafted_chances(tree, p)
    q_bits, q_top = [], []
    if tree.probs is not None and len(tree):
        q_bits, q_top = entropies(tree.probs), top_of(tree.probs, count)
    score = None if tree.score is None else tree.score.tolist()
    return Seen(p, p_bits, p_node, q_node, top_of(p, count), q_top, q_bits, score)


def seen_at_once(
    sampling: Sampling, logits: torch.Tensor, tree: DraftTree, count: int
) -> tuple[float, Seen]:
    """The same of logits ``[n+1 v]`` on a device, in one read; and the largest logit.

    The largest is NaN if any is, and infinite if any is. The tokens of the tree come along.
    """
    p, device = sampling.law(logits), logits.device
    above = sent([row + 1 for row in tree.parent], device)
    parts = [logits.amax(), tree.tokens, p[above, tree.tokens], *_told(p, count)]
    if tree.probs is not None:
        q = tree.probs
        parts += [q[torch.arange(len(tree), device=device), tree.tokens], *_told(q, count)]
    if tree.score is not None:
        parts.append(tree.score)
    read = iter(brought(*parts))
    highest, tokens, p_node = float(next(read)), next(read), next(read).tolist()
    tree.know(tokens.astype(np.int64).tolist())
    p_bits, p_top = _listed(read)
    q_node, q_bits, q_top = None, [], []
    if tree.probs is not None:
        q_node = next(read).tolist()
        q_bits, q_top = _listed(read)
    score = None if tree.score is None else next(read).tolist()
    return highest, Seen(p, p_bits, p_node, q_node, p_top, q_top, q_bits, score)


def _told(laws: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Entropies in bits, places and values of the likeliest."""
    best = laws.topk(min(count, laws.shape[-1]), -1)
    return torch.special.entr(laws).sum(-1) / math.log(2), best.indices, best.values


def _listed(read) -> tuple[list[float], list[Top]]:
    bits, places, values = next(read).tolist(), next(read).astype(np.int64), next(read)
    return bits, _tops(places.tolist(), values.tolist()) if places.shape[-1] else []


def _tops(places: list[list[int]], values: list[list[float]]) -> list[Top]:
    """Those that have any probability."""
    tops = []
    for ids, probs in zip(places, values, strict=True):
        kept = sum(1 for value in probs if value > 0)
        tops.append(Top(ids[:kept], probs[:kept]))
    return tops


def top_of(laws: torch.Tensor, count: int) -> list[Top]:
    """The ``count`` likeliest tokens of each law ``[rows v]`` that have any probability."""
    if count < 1:
        return []
    best = largest(laws, count)
    return _tops(best.places.tolist(), best.values.tolist())


def drafted_chances(tree: DraftTree, p: torch.Tensor) -> tuple[list[float], list[float] | None]:
    """What target and draft gave each drafted token; the draft None where nothing was drawn."""
    if not len(tree):
        return [], None if tree.probs is None else []
    tokens, q = tree.token_ids, None
    if tree.probs is not None:
        q = chances_of(tree.probs, range(len(tree)), tokens)
    return chances_of(p, (row + 1 for row in tree.parent), tokens), q
