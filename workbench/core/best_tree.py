"""The draft tree that keeps most tokens, given how often each choice of the draft is accepted.

*Idea*: let a[k] be the chance that the k-th child of an accepted node is accepted, wherever that
node stands. A tree then emits on average one token plus, over its nodes, the product of a[k] along
the path to the node. The best tree of n nodes splits into its first child's best subtree and the
rest, so a table over (nodes, depth) finds it.

*Paper*: Chen et al., Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding, 2024,
arXiv 2402.12374, section 3.1 (positional acceptance, dynamic programme) and 3.3 (size by hardware).

*Deviations*: the chances are expectations over verdicts (:func:`rank_acceptance`) instead of counts
of which child won. They need not fall with the rank; where they do, growing the tree best node
first (:func:`workbench.core.template.grown_template`, whose chances may differ by depth) gives the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench.core.errors import BadInput
from workbench.core.trace import Round

MOST_NODES = 512


@dataclass(frozen=True)
class BestTree:
    """A tree, what it emits on average, and what it costs.

    Args:
        parent: of each node, -1 = root; parents first, children in the order of the draft's choice.
        emitted: expected tokens of a round, the extra one included.
        round_ms: cost of a round with it, 0 where no cost was asked for.
    """

    parent: tuple[int, ...]
    emitted: float
    round_ms: float = 0.0

    @property
    def depth(self) -> int:
        """Levels below the root."""
        deepest = [0]
        for above in self.parent:
            deepest.append(deepest[above + 1] + 1)
        return max(deepest)

    @property
    def tokens_per_s(self) -> float:
        """Expected tokens a second, infinite where nothing was said about cost."""
        return float("inf") if not self.round_ms else 1e3 * self.emitted / self.round_ms


def rank_acceptance(rounds: Sequence[Round], ranks: int) -> list[float]:
    """a[k]: how often the k-th child of an accepted node was accepted, ``[ranks]``.

    Expectations over the verdicts, not counts, so that a few rounds are enough: each node counts
    with the probability that its parent was reached. A rank that never occurred has 0.
    """
    reached, kept = np.zeros(ranks), np.zeros(ranks)
    for r in rounds:
        mass = list(r.stop)
        for node in range(len(r.tokens) - 1, -1, -1):
            mass[r.parent[node] + 1] += mass[node + 1]
        seen: dict[int, int] = {}
        for node, above in enumerate(r.parent):
            rank = seen.get(above, 0)
            seen[above] = rank + 1
            if rank < ranks:
                reached[rank] += mass[above + 1]
                kept[rank] += mass[above + 1] * r.accept[node]
    return [float(k / n) if n else 0.0 for k, n in zip(kept, reached, strict=True)]


def expected_emitted(parent: Sequence[int], acceptance: Sequence[float]) -> float:
    """Tokens that a tree emits on average: 1 and the chance of every node to be accepted."""
    chance, children = [1.0], {}
    for above in parent:
        rank = children[above] = children.get(above, -1) + 1
        a = acceptance[rank] if rank < len(acceptance) else 0.0
        chance.append(chance[above + 1] * a)
    return sum(chance)


def best_tree(acceptance: Sequence[float], nodes: int, depth: int) -> BestTree:
    """The tree of at most ``nodes`` nodes and ``depth`` levels that emits most on average.

    Args:
        acceptance: a[k] for the draft's k-th choice, each in [0, 1], together at most 1.
        nodes: from 0 to 512.
        depth: levels below the root.

    Cost: nodes^2 x depth x ranks steps of an array.

    Raises:
        BadInput: chances outside [0, 1], or a size outside its range.
    """
    a = _checked(acceptance)
    if not 0 <= nodes <= MOST_NODES:
        raise BadInput(f"nodes={nodes}: 0 to {MOST_NODES}")
    if depth < 0:
        raise BadInput(f"depth={depth}: 0 or more")
    gain, split = _tables(tuple(a), nodes, min(depth, nodes))
    parent: list[int] = []
    _grow(split, nodes, min(depth, nodes), 0, -1, parent)
    return BestTree(tuple(parent), 1 + float(gain[min(depth, nodes)][0][nodes]))


def _checked(acceptance: Sequence[float]) -> list[float]:
    a = [float(x) for x in acceptance]
    if not a or any(not 0 <= x <= 1 for x in a):
        raise BadInput(f"acceptance={a}: chances between 0 and 1, at least one")
    return a


@lru_cache(maxsize=16)
def _tables(a: tuple[float, ...], nodes: int, depth: int):
    """gain[d][k][n]: most that n nodes below one node give, using its children k, k+1, ... only.

    split[d][k][n]: nodes that the k-th child's subtree takes in it, itself included.
    """
    ranks = len(a)
    gain = [np.zeros((ranks + 1, nodes + 1))]
    split = [np.zeros((ranks, nodes + 1), int)]
    for d in range(1, depth + 1):
        below, here = gain[d - 1][0], np.zeros((ranks + 1, nodes + 1))
        taken = np.zeros((ranks, nodes + 1), int)
        subtree = np.concatenate(([0.0], 1 + below[:-1]))  # value of a subtree of m nodes
        for k in range(ranks - 1, -1, -1):
            for n in range(nodes + 1):
                total = a[k] * subtree[: n + 1] + here[k + 1, n::-1]
                total[0] = 0.0  # without this child there are no later ones either
                taken[k, n] = int(np.argmax(total))
                here[k, n] = total[taken[k, n]]
        gain.append(here)
        split.append(taken)
    return gain, split


def _grow(split, nodes: int, depth: int, rank: int, above: int, parent: list[int]) -> None:
    """Append the children of ``above`` from ``rank`` on, each before its own subtree."""
    if depth == 0:
        return
    while nodes and rank < len(split[depth]):
        size = int(split[depth][rank][nodes])
        if not size:
            return
        parent.append(above)
        _grow(split, size - 1, depth - 1, 0, len(parent) - 1, parent)
        nodes, rank = nodes - size, rank + 1


def best_for_cost(
    acceptance: Sequence[float],
    round_ms: Callable[[int, int], float],
    sizes: Sequence[int],
    depths: Sequence[int],
) -> BestTree:
    """The tree with most tokens a second, over the given sizes and depths.

    Args:
        acceptance: a[k] for the draft's k-th choice.
        round_ms: cost of a round with so many nodes on so many levels.
        sizes: numbers of nodes to try; 0 = no draft at all.
        depths: levels to try.
    """
    found = []
    for nodes in sizes:
        for depth in depths if nodes else (0,):
            tree = best_tree(acceptance, nodes, depth)
            cost = round_ms(len(tree.parent), tree.depth)
            found.append(BestTree(tree.parent, tree.emitted, cost))
    if not found:
        raise BadInput("sizes and depths are empty; give at least one of each")
    return max(found, key=lambda tree: (tree.tokens_per_s, -len(tree.parent)))
