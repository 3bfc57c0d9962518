"""Turn one round's tensors into the frozen :class:`Round` that traces hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.core.decoding import Budget, Outcome, Verdict
from workbench.core.laws import chances_of
from workbench.core.trace import Forwards, Lane, Limits, Ms, Round, Top
from workbench.core.tree import DraftTree
from workbench.engine.stopwatch import Stopwatch
from workbench.models.native.laws import largest


@dataclass(frozen=True)
class Draw:
    """The outcome of a round, the row the path ended at and the uniform that decided it."""

    outcome: Outcome
    row: int
    uniform: float


def top_of(laws: torch.Tensor, count: int) -> list[Top]:
    """The ``count`` likeliest tokens of each law ``[rows v]`` that have any probability."""
    if count < 1 or not len(laws):
        return []
    best = largest(laws, count)
    tops = []
    for ids, probs in zip(best.places.tolist(), best.values.tolist(), strict=True):
        kept = sum(1 for value in probs if value > 0)
        tops.append(Top(ids[:kept], probs[:kept]))
    return tops


def entropy_bits(laws: torch.Tensor) -> list[float]:
    """Entropy of each law ``[rows v]`` in bits: 0 where one token is certain."""
    likeliest = laws.numpy().max(-1) if laws.device.type == "cpu" else laws.amax(-1)
    if (likeliest == 1).all():  # one-hot, as every greedy law is
        return [0.0] * len(laws)
    return (torch.special.entr(laws).sum(-1) / math.log(2)).tolist()


def drafted_chances(tree: DraftTree, p: torch.Tensor) -> tuple[list[float], list[float] | None]:
    """What target and draft gave each drafted token; the draft None where nothing was drawn."""
    if not len(tree):
        return [], None if tree.probs is None else []
    tokens, q = tree.token_ids, None
    if tree.probs is not None:
        q = chances_of(tree.probs, range(len(tree)), tokens)
    return chances_of(p, (row + 1 for row in tree.parent), tokens), q


def record_round(
    record_top: int,
    index: int,
    start: int,
    root: int,
    tree: DraftTree,
    p: torch.Tensor,
    bits: list[float],
    verdict: Verdict,
    drawn: Draw,
    budget: Budget,
    watch: Stopwatch,
    report: dict[str, Any] | None = None,
    note: str = "",
    lanes: Sequence[Lane] = (),
) -> Round:
    """Everything a picture or a replay needs, as plain numbers; ``bits``: entropies of ``p``."""
    kind = "chosen"
    if tree.drawn:
        kind = "with_replacement" if tree.with_replacement else "without_replacement"
    laws = [] if tree.probs is None else tree.probs
    p_node, q_node = drafted_chances(tree, p)
    target, draft = watch.forwards
    return Round(
        index=index,
        start=start,
        root=root,
        tokens=list(tree.token_ids),
        parent=list(tree.parent),
        drawn=kind,
        accept=verdict.accept.tolist(),
        stop=verdict.stop.tolist(),
        uniform=drawn.uniform,
        path=list(drawn.outcome.path),
        bonus=drawn.outcome.bonus,
        emitted=list(drawn.outcome.emitted),
        budget=Limits(budget.depth, budget.nodes, budget.width),
        ms=Ms(**watch.phases),
        forwards=Forwards(target, draft),
        forward_ms=watch.forward_ms(),
        p_node=p_node,
        q_node=q_node,
        score=None if tree.score is None else tree.score.tolist(),
        p_top=top_of(p, record_top),
        q_top=top_of(laws, record_top),
        p_bits=bits,
        q_bits=entropy_bits(laws) if len(laws) else [],
        report=report or {},
        note=note,
        lanes=list(lanes),
    )
