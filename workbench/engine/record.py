"""Turn one round's tensors into the frozen :class:`Round` that traces hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.decoding import Budget, Outcome, Verdict
from workbench.core.trace import Forwards, Lane, Limits, Ms, Round
from workbench.core.tree import DraftTree
from workbench.engine.seen import Seen
from workbench.engine.stopwatch import Stopwatch


@dataclass(frozen=True)
class Draw:
    """The outcome of a round, the row the path ended at and the uniform that decided it."""

    outcome: Outcome
    row: int
    uniform: float


def record_round(
    index: int,
    start: int,
    root: int,
    tree: DraftTree,
    seen: Seen,
    verdict: Verdict,
    drawn: Draw,
    budget: Budget,
    watch: Stopwatch,
    report: dict[str, Any] | None = None,
    note: str = "",
    lanes: Sequence[Lane] = (),
) -> Round:
    """Everything a picture or a replay needs, as plain numbers."""
    kind = "chosen"
    if tree.drawn:
        kind = "with_replacement" if tree.with_replacement else "without_replacement"
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
        p_node=seen.p_node,
        q_node=seen.q_node,
        score=seen.score,
        p_top=seen.p_top,
        q_top=seen.q_top,
        p_bits=seen.p_bits,
        q_bits=seen.q_bits,
        report=report or {},
        note=note,
        lanes=list(lanes),
    )
