"""The same budget every round."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.decoding import Budget, Context, DraftStep, Outcome
from workbench.core.method import knob, method
from workbench.core.tree import DraftTree


@method("policy", title="Fixed", paper=None)
class Fixed:
    """Grant the same depth, nodes and width every round.

    *Idea*: the setting that every paper tunes by hand; the reference for anything adaptive.
    """

    steady = True

    depth: int = knob(5, low=1, high=64, unit="tokens", help="Levels drafted below the root.")
    nodes: int = knob(16, low=1, high=512, unit="nodes", help="Draft tokens scored in one pass.")
    width: int = knob(8, low=1, high=64, unit="tokens", help="Most siblings under one node.")

    def init(self, ctx: Context) -> None:
        return None

    def budget(self, state: None) -> Budget:
        return Budget(self.depth, self.nodes, self.width)

    def go(self, state: None, steps: Sequence[DraftStep]) -> bool:
        return True

    def update(self, state: None, tree: DraftTree, outcome: Outcome) -> None:
        return None
