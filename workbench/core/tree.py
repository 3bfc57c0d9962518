"""The draft tree: what a drafter proposes and the target scores in one pass.

Letters: ``n`` tree nodes, ``v`` vocabulary. Row 0 of a tree forward is the root (the last committed
token, whose keys and values are not stored yet); row i+1 is node i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from workbench.core.errors import BadInput


@dataclass(frozen=True, eq=False)
class DraftTree:
    """Draft tokens and how they hang together.

    Args:
        tokens: drafted token ids.
        parent: index of each node's parent, -1 for a child of the root; parents come first.
        probs: the law each node was *drawn* from, given its earlier siblings; None = the tokens
            were chosen, not drawn (a point mass each).
        score: anything worth showing or pruning by (e.g. draft probability); never used to accept.
        candidate: False = scored but never accepted; None = all are candidates.
        with_replacement: whether drawn siblings are independent (may repeat) or drawn one after the
            other from what is left.

    Shapes: tokens ``[n]``, probs ``[n v]``, score ``[n]``, candidate ``[n]``; n = 0 is legal.

    Raises:
        BadInput: a parent that does not precede its node, or lengths that differ.
    """

    tokens: Int[torch.Tensor, "n"]
    parent: tuple[int, ...]
    probs: Float[torch.Tensor, "n v"] | None = None
    score: Float[torch.Tensor, "n"] | None = None
    candidate: Bool[torch.Tensor, "n"] | None = None
    with_replacement: bool = True

    def __post_init__(self) -> None:
        n = len(self.parent)
        if self.tokens.shape != (n,):
            raise BadInput(f"tree: {n} parents for tokens of shape {tuple(self.tokens.shape)}")
        for node, parent in enumerate(self.parent):
            if not -1 <= parent < node:
                raise BadInput(f"tree: parent[{node}]={parent} must precede its node")
        for name in ("probs", "score", "candidate"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise BadInput(f"tree: {name} has {len(value)} rows for {n} nodes")

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def drawn(self) -> bool:
        """Whether the tokens were drawn from ``probs`` (else chosen)."""
        return self.probs is not None

    @property
    def depth(self) -> tuple[int, ...]:
        """Depth of each node; children of the root have depth 1."""
        return shape_of(self.parent).depth

    @cached_property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens as numbers, read from their device once, whoever asks."""
        return tuple(self.tokens.tolist())

    def know(self, token_ids: Sequence[int]) -> None:
        """These are the tokens; somebody has read them together with something else."""
        self.__dict__["token_ids"] = tuple(token_ids)

    @staticmethod
    def empty(device: torch.device | str = "cpu") -> DraftTree:
        """The tree of plain decoding: no node."""
        return _no_node(torch.device(device))

    @staticmethod
    def chain(tokens: Int[torch.Tensor, "n"], probs=None, score=None) -> DraftTree:
        """One path: node i is the child of node i-1."""
        return DraftTree(tokens, tuple(range(-1, len(tokens) - 1)), probs, score)

    def path_to(self, row: int) -> list[int]:
        """Nodes from the root to ``row`` (row 0 = the root gives an empty path)."""
        path, node = [], row - 1
        while node >= 0:
            path.append(node)
            node = self.parent[node]
        return path[::-1]


@lru_cache(maxsize=8)
def _no_node(device: torch.device) -> DraftTree:
    return DraftTree(torch.empty(0, dtype=torch.long, device=device), ())


@dataclass(frozen=True)
class TreeShape:
    """What follows from the parents alone; cached, because static trees repeat every round."""

    depth: tuple[int, ...]  # [n], children of the root have depth 1
    children: tuple[tuple[int, ...], ...]  # [n+1] rows -> child nodes in draw order
    visible: np.ndarray  # [n+1 n+1] bool, row sees itself and its ancestors
    row_depth: np.ndarray  # [n+1] int64, root 0

    @property
    def is_chain(self) -> bool:
        return all(depth == index + 1 for index, depth in enumerate(self.depth))


@lru_cache(maxsize=512)
def shape_of(parent: tuple[int, ...]) -> TreeShape:
    """Depths, children and ancestor visibility of a tree given its parents."""
    rows = len(parent) + 1
    visible = np.eye(rows, dtype=bool)
    depth = np.zeros(rows, dtype=np.int64)
    children: list[list[int]] = [[] for _ in range(rows)]
    for node, above in enumerate(parent):
        row = node + 1
        visible[row] |= visible[above + 1]
        depth[row] = depth[above + 1] + 1
        children[above + 1].append(node)
    visible.setflags(write=False)
    return TreeShape(tuple(int(d) for d in depth[1:]), tuple(map(tuple, children)), visible, depth)
