"""Two drafters propose; their trees are merged and verified in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need, resumed
from workbench.core.errors import BadKnob
from workbench.core.fusion import fuse_trees
from workbench.core.method import knob, make_method, method
from workbench.core.tree import DraftTree


@dataclass
class Parts:
    """The two drafters and their states."""

    first: Any
    second: Any
    first_state: Any
    second_state: Any


@method("drafter", title="Fusion of two", paper=None)
class Fuse:
    """Let two drafters share one budget and merge what they propose by shared prefixes.

    *Idea*: drafters fail on different tokens (a model guesses what is new, a lookup knows what is
    old), and one pass of the target can check both. The merged tree counts as chosen: given its
    tokens it is fixed, so verification stays exact whatever the parts are.

    *Deviations*: none, as this is no paper's method; RASD prunes the second tree before.

    *Cost*: both parts' own, no further forward.
    """

    first: Any = knob("draft_model", family="drafter", help="Its nodes take the budget first.")
    second: Any = knob("token_recycling", family="drafter", help="Fills what is left.")
    share: float = knob(
        0.5, low=0.1, high=0.9, step=0.05, help="Part of the node budget for the first."
    )

    @property
    def needs(self) -> frozenset[Need]:
        """What either part needs."""
        parts = (make_method("drafter", part) for part in (self.first, self.second))
        return frozenset().union(*(part.needs for part in parts))

    def taps(self, layer_count: int) -> tuple[str, ...]:
        """The hidden states that either part reads."""
        found: dict[str, None] = {}
        for spec in (self.first, self.second):
            part = make_method("drafter", spec)
            if Need.HIDDEN in part.needs:
                taps = getattr(part, "taps", None)
                found |= dict.fromkeys(taps(layer_count) if taps else ("final",))
        return tuple(found)

    @property
    def corpus(self) -> tuple[str, int] | None:
        """The corpus of the part that looks things up; two parts must read the same."""
        parts = [make_method("drafter", spec) for spec in (self.first, self.second)]
        read = {part.corpus for part in parts if Need.STORE in part.needs}
        if len(read) > 1:
            raise BadKnob(f"first and second read different corpora {sorted(read)}; choose one")
        return next(iter(read), None)

    def init(self, ctx: Context) -> Parts:
        first, second = make_method("drafter", self.first), make_method("drafter", self.second)
        return Parts(first, second, first.init(ctx), second.init(ctx))

    def resume(self, ctx: Context, state: Parts) -> Parts:
        """Each part goes on from its own state, where it can."""
        first = resumed(state.first, ctx, state.first_state)
        second = resumed(state.second, ctx, state.second_state)
        return Parts(state.first, state.second, first, second)

    def propose(self, ctx: Context, state: Parts, budget: Budget) -> tuple[DraftTree, Parts]:
        """Ask the first for its share and the second for the rest, then merge."""
        asked: list[int] = []
        stopped: list[int] = []

        def go(step: DraftStep) -> bool:
            asked.append(step.depth)
            if not budget.go(step):
                stopped.append(step.depth)
            return not stopped

        share = min(budget.nodes, max(1, round(budget.nodes * self.share)))
        own = Budget(budget.depth, share, budget.width, go, budget.hidden)
        first, state.first_state = state.first.propose(ctx, state.first_state, own)
        depth = stopped[0] if stopped else budget.depth
        # A policy follows one chain of levels: once the first part was asked, its answer holds.
        ask = (lambda step: True) if asked else go
        rest = Budget(depth, budget.nodes - len(first), budget.width, ask, budget.hidden)
        second, state.second_state = state.second.propose(ctx, state.second_state, rest)
        depth = stopped[0] if stopped else depth
        tree, origin = fuse_trees(first, second, budget.nodes, depth, budget.width)
        ctx.report("origin", origin)
        return tree, state

    def update(self, ctx: Context, state: Parts, feedback: Feedback) -> Parts:
        state.first_state = state.first.update(ctx, state.first_state, feedback)
        state.second_state = state.second.update(ctx, state.second_state, feedback)
        return state
