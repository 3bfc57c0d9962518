"""Look the end of the text up in a corpus and draft what usually follows there."""

from __future__ import annotations

import heapq
from collections import Counter

import torch

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree

Path = tuple[int, ...]


@method(
    "drafter",
    title="REST (corpus lookup)",
    paper=Paper("REST: Retrieval-Based Speculative Decoding", 2023, "2311.08252"),
)
class Rest:
    """Find the longest span at the text's end that occurs in a corpus; draft its continuations.

    *Idea*: what followed a rare span before is likely to follow again. A suffix array answers in
    two binary searches; the continuations of all hits form a trie whose most frequent prefixes are
    the draft tree.

    *Deviations*: matches and continuations never cross documents (the authors' index joins them);
    the nodes are the heaviest prefixes exactly, not a best-effort trim; ties go to the
    continuation that comes first in the corpus; hits beyond ``hits`` are thinned evenly.

    *Shapes*: a corpus of t tokens takes 8 t bytes. *Cost*: no forward; about 0.5 ms a round.

    *Raises*: BadInput for a corpus that is missing, empty or not text.
    """

    needs = frozenset({Need.STORE})

    folder: str = knob("stdlib", help="Corpus: stdlib (the standard library) or a folder of text.")
    limit: int = knob(
        1_000_000, low=1_000, high=20_000_000, unit="tokens", help="Corpus read at most."
    )
    longest: int = knob(16, low=1, high=16, unit="tokens", help="Longest span looked up.")
    shortest: int = knob(2, low=1, high=16, unit="tokens", help="Shortest span trusted.")
    hits: int = knob(64, low=1, high=5000, unit="places", help="Occurrences looked at.")

    @property
    def corpus(self) -> tuple[str, int]:
        """Which corpus to open, and how much of it."""
        return self.folder, self.limit

    def init(self, ctx: Context) -> None:
        return None

    def propose(self, ctx: Context, state: None, budget: Budget) -> tuple[DraftTree, None]:
        """The heaviest prefixes of what follows the matched span."""
        if min(budget.depth, budget.nodes, budget.width) < 1:
            return DraftTree.empty(ctx.device), None
        length, places = ctx.store.longest(ctx.tokens, self.longest, self.shortest)
        if len(places) > self.hits:
            places = places[:: -(-len(places) // self.hits)]
        found = [ctx.store.after(int(place), budget.depth) for place in places]
        ctx.report("span", length)
        ctx.report("hits", len(places))
        paths, counts = heaviest(found, budget.nodes, budget.width)
        index = {path: node for node, path in enumerate(paths)}
        return DraftTree(
            torch.tensor([path[-1] for path in paths], dtype=torch.long, device=ctx.device),
            tuple(index.get(path[:-1], -1) for path in paths),
            score=torch.tensor([counts[path] / len(found) for path in paths], device=ctx.device),
        ), None

    def update(self, ctx: Context, state: None, feedback: Feedback) -> None:
        return None


def heaviest(
    continuations: list[list[int]], nodes: int, width: int
) -> tuple[list[Path], Counter[Path]]:
    """The most frequent prefixes, parents before children, and how often each occurs."""
    counts: Counter[Path] = Counter()
    order: dict[Path, int] = {}
    below: dict[Path, list[Path]] = {}
    for tokens in continuations:
        for end in range(1, len(tokens) + 1):
            path = tuple(tokens[:end])
            if path not in order:
                order[path] = len(order)
                below.setdefault(path[:-1], []).append(path)
            counts[path] += 1
    chosen: list[Path] = []
    heap = [(-counts[path], order[path], path) for path in _first(below, (), counts, width)]
    heapq.heapify(heap)
    while heap and len(chosen) < nodes:
        _, _, path = heapq.heappop(heap)
        chosen.append(path)
        for child in _first(below, path, counts, width):
            heapq.heappush(heap, (-counts[child], order[child], child))
    return chosen, counts


def _first(below: dict[Path, list[Path]], path: Path, counts: Counter[Path], width: int):
    """The ``width`` most frequent children; equal ones in the order in which they were met."""
    return sorted(below.get(path, []), key=lambda child: -counts[child])[:width]
