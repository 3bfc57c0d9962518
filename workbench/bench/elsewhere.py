"""What a draft would gain on hardware that is not here, with an acceptance that was measured here.

*Idea*: the roofline gives what passes cost, the measured acceptance by rank what a tree emits; the
best tree is the one with most tokens a second. Acceptance is taken over as it is, which holds for
the models and the text that it was measured on, and is a guess for larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from workbench.bench.cost_curve import CostCurve, RoundCost
from workbench.bench.cost_model import DEPTHS, SIZES
from workbench.bench.roofline import Hardware, Size, link_ms, predicted_curve, rows_for_free
from workbench.core.best_tree import BestTree, best_tree
from workbench.core.errors import BadInput


@dataclass(frozen=True)
class Place:
    """Models on hardware.

    Args:
        target: the model that verifies.
        draft: the model that drafts; None = drafting runs no model.
        hardware: of the target.
        draft_hardware: of the draft, where it stands elsewhere; None = beside the target.
        vocabulary: tokens of a law that crosses the link for each drafted node.
        context: stored tokens.
    """

    target: Size
    draft: Size | None
    hardware: Hardware
    draft_hardware: Hardware | None = None
    vocabulary: int = 32_000
    context: int = 512

    def __post_init__(self) -> None:
        for name, low in (("vocabulary", 2), ("context", 1)):
            if getattr(self, name) < low:
                raise BadInput(f"{name}={getattr(self, name)}: must be {low} or more")
        for model in filter(None, (self.target, self.draft)):
            if model.parameters <= 0:
                raise BadInput(f"parameters={model.parameters} of the {model.name}: above 0")


@dataclass(frozen=True)
class Prediction:
    """The best tree of a place and what a round with it costs; every number is computed.

    Args:
        speedup: tokens a second against plain decoding at the same place.
        plain_ms: of a token without a draft.
        verify_ms, draft_ms, link_ms: of a round with the tree; they add up to ``best.round_ms``.
        rows_for_free: rows at which the target's pass begins to cost more.
        by_nodes: (nodes, speedup) of the best tree of every size.
    """

    best: BestTree
    speedup: float
    plain_ms: float
    verify_ms: float
    draft_ms: float
    link_ms: float
    rows_for_free: float
    by_nodes: tuple[tuple[int, float], ...]
    verify: CostCurve
    draft: CostCurve | None


def predict(
    acceptance: Sequence[float],
    place: Place,
    draft_ms: float = 0.0,
    draft_model: bool = True,
) -> Prediction:
    """The best tree for a place, and its speed-up.

    Args:
        acceptance: a[k], measured, see :func:`workbench.core.best_tree.rank_acceptance`.
        draft_ms: a round, of a draft that runs no model.
        draft_model: whether drafting runs the place's draft.
    """
    contexts = (place.context,)
    verify = predicted_curve(place.target, place.hardware, contexts=contexts)
    draft = None
    if draft_model and place.draft is not None:
        draft = predicted_curve(
            place.draft, place.draft_hardware or place.hardware, contexts=contexts
        )
    cost = RoundCost(verify, draft, 0.0 if draft is not None else draft_ms)

    def moved_ms(nodes: int, depth: int) -> float:
        if not nodes or draft is None or place.draft_hardware is None:
            return 0.0
        return link_ms(place.hardware, nodes, place.vocabulary, depth)

    plain_ms = cost.plain_ms()
    found = []
    for tree in trees(tuple(acceptance)):
        nodes, depth = len(tree.parent), tree.depth
        found.append(replace(tree, round_ms=cost.round_ms(nodes, depth) + moved_ms(nodes, depth)))
    best = max(found, key=lambda tree: (tree.tokens_per_s, -len(tree.parent)))
    nodes, depth = len(best.parent), best.depth
    verify_ms, link = verify.pass_ms(nodes + 1), moved_ms(nodes, depth)
    return Prediction(
        best,
        best.emitted * plain_ms / best.round_ms,
        plain_ms,
        verify_ms,
        best.round_ms - verify_ms - link,
        link,
        rows_for_free(place.target, place.hardware),
        _by_nodes(found, plain_ms),
        verify,
        draft,
    )


def _by_nodes(found: Sequence[BestTree], plain_ms: float) -> tuple[tuple[int, float], ...]:
    best: dict[int, float] = {}
    for tree in found:
        if len(tree.parent) not in SIZES:
            continue  # so shallow that there is no use for more nodes
        gain = tree.emitted * plain_ms / tree.round_ms
        best[len(tree.parent)] = max(gain, best.get(len(tree.parent), 0.0))
    return tuple(sorted(best.items()))


@lru_cache(maxsize=8)
def trees(acceptance: tuple[float, ...]) -> tuple[BestTree, ...]:
    """The trees that emit most, of every size and depth that is tried."""
    found = {
        tree.parent: tree
        for nodes in SIZES
        for depth in (DEPTHS if nodes else (0,))
        for tree in [best_tree(acceptance, nodes, depth)]
    }
    return tuple(found.values())
