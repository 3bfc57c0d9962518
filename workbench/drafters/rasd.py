"""A draft model's tree and retrieved continuations, pruned by the draft and merged into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need, resumed
from workbench.core.fusion import fuse_trees
from workbench.core.method import Paper, knob, make_method, method
from workbench.core.tree import DraftTree


@dataclass
class RasdState:
    """Both parts with their states."""

    draft: Any
    retriever: Any
    draft_state: Any
    retriever_state: Any


class _Listening:
    """Passes the policy's questions on and keeps the draft's law at the root."""

    def __init__(self, budget: Budget):
        self.budget = budget
        self.root: torch.Tensor | None = None
        self.stopped_at: int | None = None

    def __call__(self, step: DraftStep) -> bool:
        if step.depth == 1 and step.logits is not None:
            self.root = step.logits.float().softmax(-1)
        if self.stopped_at is None and not self.budget.go(step):
            self.stopped_at = step.depth
        return self.stopped_at is None


@method(
    "drafter",
    title="RASD",
    paper=Paper("RASD: Retrieval-Augmented Speculative Decoding", 2025, "2503.03434"),
)
class Rasd:
    """Keep the retrieved branches that the draft believes in and merge them into its own tree.

    *Idea*: the draft knows how the text goes on in general but not for long; retrieved text is long
    but often beside the point. The draft's law at the root says which retrieved first tokens are
    worth their nodes; the rest is merged by longest prefix and checked in one pass.

    *Deviations*: the paper's thresholds are not published; a branch stays if its first token is
    among the draft's ``first`` likeliest at the root, and nodes are worth that probability times
    the share of their count: the best of them fill what the draft's tree leaves of the budget.
    Where a draft shows no law at the root every branch stays, in the retriever's order. The merged
    tree is *chosen*: matching one draw of p a node is exact for it.

    *Cost*: both parts' own, no further forward.
    """

    draft: Any = knob("draft_model", family="drafter", help="Who judges the root and drafts.")
    retriever: Any = knob("rest", family="drafter", help="Who looks continuations up.")
    retrieved: float = knob(
        0.5, low=0.1, high=0.9, step=0.05, help="Part of the node budget for retrieved nodes."
    )
    first: int = knob(
        10, low=1, high=64, unit="tokens", help="Likeliest first tokens that may stay."
    )

    def _parts(self) -> tuple[Any, Any]:
        return make_method("drafter", self.draft), make_method("drafter", self.retriever)

    @property
    def needs(self) -> frozenset[Need]:
        """What either part needs."""
        return frozenset().union(*(part.needs for part in self._parts()))

    @property
    def corpus(self) -> tuple[str, int] | None:
        """The corpus of the part that looks things up."""
        for part in self._parts():
            if Need.STORE in part.needs:
                return part.corpus
        return None

    def init(self, ctx: Context) -> RasdState:
        draft, retriever = self._parts()
        return RasdState(draft, retriever, draft.init(ctx), retriever.init(ctx))

    def resume(self, ctx: Context, state: RasdState) -> RasdState:
        """Each part goes on from its own state, where it can."""
        draft = resumed(state.draft, ctx, state.draft_state)
        retriever = resumed(state.retriever, ctx, state.retriever_state)
        return RasdState(state.draft, state.retriever, draft, retriever)

    def propose(
        self, ctx: Context, state: RasdState, budget: Budget
    ) -> tuple[DraftTree, RasdState]:
        """Draft, retrieve, prune, merge."""
        asked = round(budget.nodes * self.retrieved)
        heard = _Listening(budget)
        own = Budget(budget.depth, budget.nodes - asked, budget.width, heard, budget.hidden)
        tree, state.draft_state = state.draft.propose(ctx, state.draft_state, own)
        depth = heard.stopped_at or budget.depth
        rest = Budget(depth, budget.nodes, budget.width, heard, budget.hidden)
        found, state.retriever_state = state.retriever.propose(ctx, state.retriever_state, rest)
        kept = pruned(found, _root_law(heard, tree), self.first, ctx.vocab_size)
        merged, origin = fuse_trees(
            tree, kept, budget.nodes, heard.stopped_at or depth, budget.width
        )
        names = {"first": "draft", "second": "retrieved", "both": "both"}
        ctx.report("origin", [names[name] for name in origin])
        ctx.report("pruned", len(found) - len(kept))
        return merged, state

    def update(self, ctx: Context, state: RasdState, feedback: Feedback) -> RasdState:
        state.draft_state = state.draft.update(ctx, state.draft_state, feedback)
        state.retriever_state = state.retriever.update(ctx, state.retriever_state, feedback)
        return state


def _root_law(heard: _Listening, tree: DraftTree) -> torch.Tensor | None:
    """The draft's law at the root, as it told the policy or as it declared it."""
    if heard.root is not None:
        return heard.root
    if tree.probs is not None and len(tree):
        return tree.probs[0]
    return None


def pruned(found: DraftTree, law: torch.Tensor | None, first: int, vocab_size: int) -> DraftTree:
    """The branches whose first token is among the ``first`` likeliest of ``law``, best node first.

    A node is worth its branch's probability times its own score, and never more than its parent.
    """
    if law is None or not len(found):
        return found
    likely = law[:vocab_size].topk(min(first, len(law), vocab_size))
    allowed = dict(zip(likely.indices.tolist(), likely.values.tolist(), strict=True))
    shares = [1.0] * len(found) if found.score is None else found.score.tolist()
    branch: dict[int, float] = {}  # the probability of each kept node's first token
    worth: dict[int, float] = {-1: float("inf")}
    for node, above in enumerate(found.parent):
        chance = allowed.get(int(found.tokens[node])) if above < 0 else branch.get(above)
        if chance is not None:
            branch[node], worth[node] = chance, min(worth[above], chance * shares[node])
    kept = sorted(branch, key=lambda node: -worth[node])  # stable, so parents stay before children
    place = {node: new for new, node in enumerate(kept)}
    parent = tuple(place.get(found.parent[node], -1) for node in kept)
    return DraftTree(
        found.tokens[kept], parent, score=None if found.score is None else found.score[kept]
    )
