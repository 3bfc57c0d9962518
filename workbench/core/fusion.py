"""Merge draft trees by shared prefixes: equal tokens below equal paths become one node."""

from __future__ import annotations

import torch

from workbench.core.tree import DraftTree

FIRST, SECOND, BOTH = "first", "second", "both"


def fuse_trees(
    first: DraftTree, second: DraftTree, nodes: int, depth: int, width: int
) -> tuple[DraftTree, list[str]]:
    """One tree with the paths of both, and for each node which of them proposed it.

    The nodes of ``first`` come first, then what ``second`` adds, until the limits are met; a node
    whose parent found no room is left out too. The result is *chosen* (``probs`` is None): given
    the tokens the tree is fixed, however they were found, so any lossless rule for point masses is
    exact for it.

    Example:
        >>> tree, origin = fuse_trees(a, b, nodes=16, depth=5, width=4)
    """
    place: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parent: list[int] = []
    origin: list[str] = []
    children: dict[int, int] = {}
    for name, tree in ((FIRST, first), (SECOND, second)):
        at = {-1: -1}
        deep = tree.depth
        for node, token in enumerate(tree.token_ids):
            above = at.get(tree.parent[node])
            if above is None or deep[node] > depth:
                continue
            known = place.get((above, token))
            if known is None:
                if len(tokens) >= nodes or children.get(above, 0) >= width:
                    continue
                known = place[above, token] = len(tokens)
                tokens.append(token)
                parent.append(above)
                origin.append(name)
                children[above] = children.get(above, 0) + 1
            elif origin[known] != name:
                origin[known] = BOTH
            at[node] = known
    device = first.tokens.device
    return DraftTree(torch.tensor(tokens, dtype=torch.long, device=device), tuple(parent)), origin
