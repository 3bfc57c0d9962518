"""No draft: plain decoding through the same loop, the denominator of every speed-up."""

from __future__ import annotations

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import method
from workbench.core.tree import DraftTree


@method("drafter", title="None (plain decoding)", paper=None)
class NoDraft:
    """Propose nothing, so that every round is one target forward and one token.

    *Idea*: the baseline must run on the same engine as what it is compared with.

    *Cost*: one target forward a token.
    """

    needs = frozenset[Need]()

    def init(self, ctx: Context) -> None:
        return None

    def propose(self, ctx: Context, state: None, budget: Budget) -> tuple[DraftTree, None]:
        return DraftTree.empty(ctx.device), None

    def update(self, ctx: Context, state: None, feedback: Feedback) -> None:
        return None
