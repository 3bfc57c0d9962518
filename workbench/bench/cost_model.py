"""Predicted beside measured: what the cost curves say of a draft's size, and what happens.

The prediction needs three things: the curves of this machine, how often each choice of the draft is
accepted (from one wide run), and how a round's other milliseconds go. It is then compared with runs
that really use those sizes, interleaved with plain decoding.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workbench.bench.cost_curve import CostCurve, RoundCost, measure_curve
from workbench.core.best_tree import BestTree, best_for_cost, expected_emitted, rank_acceptance
from workbench.core.decoding import Need
from workbench.core.errors import BadInput, at_least
from workbench.core.method import make_method
from workbench.core.trace import Round
from workbench.engine.run import Run, RunSettings

SIZES = (0, 1, 2, 4, 8, 16, 32, 64)
DEPTHS = (1, 2, 3, 4, 6, 8)
DRAFTS = ((1, 1), (4, 2), (8, 3), (16, 4), (32, 5))  # (nodes, depth) that are really run
_RANKS = 8


@dataclass(frozen=True)
class SizeRow:
    """One size of draft: what was predicted and what was measured (NaN where it was not).

    Args:
        nodes, depth: what the policy granted.
        predicted_emitted, emitted: tokens a round, from the acceptance by rank and as it was.
        predicted_ms, measured_ms: of a round.
        predicted_ratio, measured_ratio: tokens a second against plain decoding.
    """

    nodes: int
    depth: int
    predicted_emitted: float
    emitted: float
    predicted_ms: float
    measured_ms: float
    predicted_ratio: float
    measured_ratio: float


@dataclass(frozen=True)
class CostReport:
    """The curves, the acceptance by rank, the best tree they give, and the rows that test them."""

    verify: CostCurve
    draft: CostCurve | None
    acceptance: list[float]
    best: BestTree
    cost: RoundCost
    rows: list[SizeRow]


def cost_report(
    settings: RunSettings,
    prompts: Sequence[str],
    sizes: Sequence[tuple[int, int]] = DRAFTS,
    repeats: int = 2,
    progress: Callable[[float], None] = lambda share: None,
) -> CostReport:
    """Measure the curves and the sizes, and predict one from the other.

    Args:
        settings: target, drafter, verifier, sampling and length; the policy is replaced.
        prompts: texts to continue.
        sizes: (nodes, depth) to really run.
        repeats: of every prompt and size; sizes take turns.

    Raises:
        BadInput: no prompts or no sizes.
    """
    if not prompts or not sizes:
        raise BadInput("prompts and sizes: give at least one of each")
    at_least(1, repeats=repeats)
    # The first round pays for what is set up, so with one token nothing would be left to measure.
    at_least(2 + max(depth for _, depth in sizes), max_new_tokens=settings.max_new_tokens)
    verify = measure_curve(settings.model, progress=lambda s: progress(0.2 * s))
    assert verify is not None  # nobody stopped it
    draft = None
    if settings.draft_model is not None and Need.DRAFT in settings.drafter.needs:
        draft = measure_curve(settings.draft_model, (1, 2, 4, 8, 16))
    taken: dict[tuple[int, int], list[Round]] = {size: [] for size in ((0, 0), *sizes)}
    for repeat in range(repeats):
        for place, prompt in enumerate(prompts):
            order = list(taken) if (repeat + place) % 2 == 0 else list(taken)[::-1]
            for size in order:
                taken[size] += _rounds(settings, prompt, size, repeat * 1000 + place)
            done = (repeat * len(prompts) + place + 1) / (repeats * len(prompts))
            progress(0.2 + 0.8 * done)
    widest = [r for size in sizes for r in taken[size]]
    acceptance = rank_acceptance(widest, _RANKS)
    cost = _round_cost(verify, draft, taken[(0, 0)], widest)
    rows = [_row(size, taken[size], taken[(0, 0)], cost, acceptance) for size in sizes]
    best = best_for_cost(acceptance, cost.round_ms, SIZES, DEPTHS)
    return CostReport(verify, draft, acceptance, best, cost, rows)


def _rounds(settings: RunSettings, prompt: str, size: tuple[int, int], seed: int) -> list[Round]:
    nodes, depth = size
    changes: dict = {
        "prompt": prompt,
        "sampling": replace(settings.sampling, seed=seed),
        "record_top": 0,
    }
    if nodes:
        widths = {"width": 1} if settings.verifier.chains_only else {}
        changes["policy"] = make_method("policy", "fixed", depth=depth, nodes=nodes, **widths)
    else:
        changes |= {"drafter": "none", "policy": "fixed"}
    run = Run(settings.change(**changes))
    run.decoding.eos_ids = frozenset()
    return list(run.rounds())[1:]  # the first pays for what is set up


def _round_cost(verify, draft, plain: list[Round], drafted: list[Round]) -> RoundCost:
    """The curves, with a round's milliseconds outside passes as they were."""
    outside, more = (
        statistics.median(r.ms.total - r.forward_ms for r in taken) for taken in (plain, drafted)
    )
    return RoundCost(verify, draft, draft_ms=max(0.0, more - outside), other_ms=outside)


def _row(size, taken: list[Round], plain: list[Round], cost: RoundCost, acceptance) -> SizeRow:
    nodes, depth = size
    expected = statistics.fmean(expected_emitted(r.parent, acceptance) for r in taken)
    emitted = statistics.fmean(len(r.emitted) for r in taken)
    built = round(statistics.fmean(len(r.tokens) for r in taken))
    measured = statistics.fmean(r.ms.total for r in taken)
    predicted = cost.round_ms(built, min(depth, built))
    return SizeRow(
        nodes,
        depth,
        expected,
        emitted,
        predicted,
        measured,
        expected * cost.plain_ms() / predicted,
        emitted * statistics.fmean(r.ms.total for r in plain) / measured,
    )
