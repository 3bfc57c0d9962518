"""Longer after a full success, shorter after a rejection: the rule transformers ships."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.decoding import Budget, Context, DraftStep, Outcome
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree


@method(
    "policy",
    title="Heuristic (+2 / -1)",
    paper=Paper("Assisted Generation (transformers, heuristic schedule)", 2023, ""),
)
class Heuristic:
    """Draft two tokens more after everything was accepted, one fewer after a rejection.

    *Idea*: a success says that more was possible; the step down is smaller than the step up, so the
    length settles where about two thirds of the rounds fail.

    *Deviations*: starts at ``start`` for every run (transformers keeps the length across calls)
    and stays below ``most``.
    """

    steady = True

    start: int = knob(5, low=1, high=64, unit="tokens", help="Depth of the first round.")
    up: int = knob(2, low=0, high=16, unit="tokens", help="Added after full acceptance.")
    down: int = knob(1, low=0, high=16, unit="tokens", help="Taken off after a rejection.")
    most: int = knob(24, low=1, high=64, unit="tokens", help="Never deeper than this.")
    nodes: int = knob(32, low=1, high=512, unit="nodes", help="Draft tokens scored in one pass.")
    width: int = knob(8, low=1, high=64, unit="tokens", help="Most siblings under one node.")

    def init(self, ctx: Context) -> int:
        return min(self.start, self.most)

    def budget(self, state: int) -> Budget:
        return Budget(state, max(self.nodes, state), self.width)

    def go(self, state: int, steps: Sequence[DraftStep]) -> bool:
        return True

    def update(self, state: int, tree: DraftTree, outcome: Outcome) -> int:
        if not len(tree):
            return state
        whole = len(outcome.path) == max(tree.depth)
        return min(self.most, state + self.up) if whole else max(1, state - self.down)
