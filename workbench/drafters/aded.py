"""A table of three-token statistics, nudged by the running text, searched with PUCT."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree
from workbench.core.trigrams import PackedTrigrams, Pair, Trigrams
from workbench.models.store import Store


@lru_cache(maxsize=4)
def _packed(store: Store, top: int) -> PackedTrigrams:
    return PackedTrigrams(store.tokens, top)


@dataclass
class Leaf:
    """A node of the search: visits, summed reward, prior weight and children by token."""

    prior: float
    visits: int = 0
    reward: float = 0.0
    children: dict[int, Leaf] = field(default_factory=dict)


@method(
    "drafter",
    title="ADED (trigrams + tree search)",
    paper=Paper(
        "Adaptive Draft-Verification for Efficient Large Language Model Decoding",
        2024,
        "2407.12021",
    ),
)
class Aded:
    """Draft the continuations that a tree search over an adaptive trigram table visits most.

    *Idea*: three-token statistics of a corpus stand in for a draft model, the running text sharpens
    them, and a search that balances weight against visits picks which branches are worth a node.

    *Deviations*: an expansion steps into the heaviest successor instead of the last one created,
    and rollouts follow it instead of a random one, so that a run needs no random number and a seed
    changes nothing; pairs never seen are skipped instead of drafting an arbitrary token; the budget
    is met by taking the most visited prefixes (24 sentences there), and the heaviest successor is
    appended to leaves only.

    *Cost*: no forward; about 10 us a simulation and level.
    """

    needs = frozenset({Need.STORE})

    folder: str = knob("stdlib", help="Corpus: stdlib (the standard library) or a folder of text.")
    limit: int = knob(
        1_000_000, low=1_000, high=20_000_000, unit="tokens", help="Corpus read at most."
    )
    top: int = knob(12, low=1, high=64, unit="tokens", help="Successors kept for each pair.")
    simulations: int = knob(60, low=1, high=500, unit="simulations", help="Of the search a round.")
    c1: float = knob(32.0, low=0.0, high=100.0, step=0.5, help="Weight of unexplored branches.")
    c2: float = knob(8.0, low=0.1, high=100.0, step=0.5, help="How slowly exploration grows.")
    step: float = knob(0.04, low=0.0, high=1.0, step=0.01, help="Added for each time seen.")
    cap: float = knob(3.0, low=0.1, high=10.0, step=0.1, help="Largest weight of a successor.")
    window: int = knob(16, low=3, high=256, unit="tokens", help="Newest text that is counted.")

    @property
    def corpus(self) -> tuple[str, int]:
        """Which corpus to open, and how much of it."""
        return self.folder, self.limit

    def init(self, ctx: Context) -> Trigrams:
        return Trigrams(_packed(ctx.store, self.top))

    def resume(self, ctx: Context, state: Trigrams) -> Trigrams:
        """Keep what earlier texts have taught."""
        return state

    def propose(self, ctx: Context, state: Trigrams, budget: Budget) -> tuple[DraftTree, Trigrams]:
        """Count the newest text, search, and take the most visited prefixes."""
        self._learn(ctx.tokens, state)
        if min(budget.depth, budget.nodes, budget.width) < 1 or len(ctx.tokens) < 2:
            return DraftTree.empty(ctx.device), state
        root = Leaf(1.0)
        pair = (ctx.tokens[-2], ctx.tokens[-1])
        for _ in range(self.simulations):
            self._simulate(state, root, pair, min(3, budget.depth))
        paths = self._most_visited(state, root, pair, budget)
        index = {path: node for node, (path, _) in enumerate(paths)}
        ctx.report("visits", [visits for _, visits in paths])
        ctx.report("bumped", [[*pair, token, weight] for pair, token, weight in state.bumped[-16:]])
        return DraftTree(
            torch.tensor([path[-1] for path, _ in paths], dtype=torch.long, device=ctx.device),
            tuple(index.get(path[:-1], -1) for path, _ in paths),
            score=torch.tensor([float(visits) for _, visits in paths], device=ctx.device),
        ), state

    def update(self, ctx: Context, state: Trigrams, feedback: Feedback) -> Trigrams:
        return state

    def _learn(self, tokens: list[int], state: Trigrams) -> None:
        """Bump every trigram inside the window; a window that has not moved teaches nothing."""
        state.bumped = []
        if len(tokens) == state.size:
            return
        state.size = len(tokens)
        recent = tokens[-self.window :]
        for a, b, c in zip(recent, recent[1:], recent[2:], strict=False):
            state.bump((a, b), c, self.step, self.cap)

    def _simulate(self, state: Trigrams, root: Leaf, pair: Pair, depth: int) -> None:
        """Select by PUCT, expand once, follow the heaviest successors, and credit the path."""
        path, reward, level, node = [root], 1.0, 0, root
        while node.children and level < depth:
            token, child = self._select(node)
            path.append(child)
            reward, node, level = reward + child.prior, child, level + 1
            pair = (pair[1], token)
        if level < depth:
            row = state.row(pair)
            node.children = {token: Leaf(weight) for token, weight in row.items()}
            if row:
                token = max(row, key=row.__getitem__)
                path.append(node.children[token])
                reward, pair, level = reward + row[token], (pair[1], token), level + 1
                reward += self._rollout(state, pair, depth - level)
        for visited in path:
            visited.visits += 1
            visited.reward += reward

    def _rollout(self, state: Trigrams, pair: Pair, levels: int) -> float:
        total = 0.0
        for _ in range(levels):
            row = state.row(pair)
            if not row:
                break
            token = max(row, key=row.__getitem__)
            total, pair = total + row[token], (pair[1], token)
        return total

    def _select(self, node: Leaf) -> tuple[int, Leaf]:
        """The child with the best mean reward plus exploration; unvisited ones come first."""
        grown = self.c1 + math.log((node.visits + self.c2 + 1) / self.c2)
        root = math.sqrt(node.visits)
        best, chosen = -math.inf, next(iter(node.children.items()))
        for token, child in node.children.items():
            if not child.visits:
                return token, child
            score = child.reward / child.visits + grown * child.prior * root / (1 + child.visits)
            if score > best:
                best, chosen = score, (token, child)
        return chosen

    def _most_visited(self, state: Trigrams, root: Leaf, pair: Pair, budget: Budget):
        """Prefixes by visits, parents first; each leaf grows by its heaviest successor."""
        found: list[tuple[tuple[int, ...], int]] = []
        open_paths: list[tuple[tuple[int, ...], Leaf]] = _ordered((), root, budget.width)
        while open_paths and len(found) < budget.nodes:
            place = max(range(len(open_paths)), key=lambda i: open_paths[i][1].visits)
            path, leaf = open_paths.pop(place)
            found.append((path, leaf.visits))
            if len(path) < budget.depth:
                below = leaf.children or self._heaviest(state, (*pair, *path)[-2:])
                open_paths += _ordered(path, Leaf(0.0, children=below), budget.width)
        return found

    def _heaviest(self, state: Trigrams, pair: Iterable[int]) -> dict[int, Leaf]:
        first, second = pair
        row = state.row((first, second))
        if not row:
            return {}
        token = max(row, key=row.__getitem__)
        return {token: Leaf(row[token])}


def _ordered(path: tuple[int, ...], leaf: Leaf, width: int):
    """The ``width`` most visited children, as open paths."""
    best = sorted(leaf.children.items(), key=lambda item: -item[1].visits)[:width]
    return [((*path, token), child) for token, child in best]
