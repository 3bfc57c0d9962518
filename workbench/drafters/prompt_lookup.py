"""Copy what followed the last time the text ended like this."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree


@dataclass
class NgramIndex:
    """Where each n-gram of the text was followed by something: n-gram -> following position."""

    size: int = 0
    places: dict[tuple[int, ...], int] = field(default_factory=dict)


@method(
    "drafter",
    title="Prompt lookup",
    paper=Paper("Prompt Lookup Decoding", 2023, ""),
)
class PromptLookup:
    """Find the longest suffix of the text that occurred before and copy its continuation.

    *Idea*: code, summaries and edits repeat their input; copying costs nothing.

    *Paper*: A. Saxena, Prompt Lookup Decoding, 2023 (a repository, no article); the same idea with
    a reference text is LLMA, arXiv 2304.04487.

    *Deviations*: the n-grams are indexed as the text grows instead of being searched for, and
    ``prefer`` can choose the latest occurrence (the original takes the earliest).

    *Cost*: no forward; time and memory linear in the text times ``max_ngram``.
    """

    needs = frozenset[Need]()

    max_ngram: int = knob(3, low=1, high=8, unit="tokens", help="Longest suffix looked up.")
    min_ngram: int = knob(1, low=1, high=8, unit="tokens", help="Shortest suffix looked up.")
    prefer: str = knob(
        "latest",
        choices=("latest", "earliest"),
        help="Which earlier occurrence to copy from.",
    )

    def init(self, ctx: Context) -> NgramIndex:
        return NgramIndex()

    def _extend(self, index: NgramIndex, tokens: list[int]) -> None:
        """Index every n-gram that has a token after it."""
        for after in range(max(1, index.size), len(tokens)):
            for n in range(self.min_ngram, min(self.max_ngram, after) + 1):
                key = tuple(tokens[after - n : after])
                if self.prefer == "latest":
                    index.places[key] = after
                else:
                    index.places.setdefault(key, after)
        index.size = max(index.size, len(tokens))

    def propose(
        self, ctx: Context, state: NgramIndex, budget: Budget
    ) -> tuple[DraftTree, NgramIndex]:
        """The tokens that followed the longest known suffix, as a chain."""
        tokens = ctx.tokens
        self._extend(state, tokens)
        length = min(budget.depth, budget.nodes) if budget.width else 0
        for n in range(min(self.max_ngram, len(tokens)), self.min_ngram - 1, -1):
            place = state.places.get(tuple(tokens[-n:]))
            if place is not None and length > 0:
                copied = torch.tensor(tokens[place : place + length], device=ctx.device)
                return DraftTree.chain(copied), state
        return DraftTree.empty(ctx.device), state

    def update(self, ctx: Context, state: NgramIndex, feedback: Feedback) -> NgramIndex:
        return state
