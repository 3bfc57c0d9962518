"""Static draft trees, grown for the chance that each rank at each depth is right."""

from __future__ import annotations

import heapq
from functools import lru_cache

Template = tuple[tuple[int, int], ...]
Ranks = tuple[tuple[float, ...], ...]


@lru_cache(maxsize=256)
def grown_template(
    values: Ranks, nodes: int, depth: int, width: int
) -> tuple[tuple[int, int], ...]:
    """The best tree of ``nodes`` nodes as (parent, rank) pairs in breadth-first order.

    Adding the most valuable free child again and again is optimal where values multiply along a
    path and fall with the rank (Sequoia, arXiv 2402.12374, section 3.1).

    Args:
        values: ``values[m][r]`` = chance that rank r at depth m+1 is right once its parent is; it
            must not rise with r. Depths beyond the last row have no nodes.
        nodes, depth, width: at most so many nodes, levels and children of a node.

    Example:
        >>> grown_template(((0.5, 0.3), (0.4, 0.1)), 3, 2, 2)
        ((-1, 0), (-1, 1), (0, 0))
    """
    depth = min(depth, len(values))
    if min(nodes, depth, width) < 1:
        return ()
    frontier = [(-values[0][0], (0,))]
    chosen: list[tuple[int, ...]] = []
    while frontier and len(chosen) < nodes:
        value, path = heapq.heappop(frontier)
        chosen.append(path)
        level, rank = len(path) - 1, path[-1]
        if rank + 1 < min(width, len(values[level])) and values[level][rank] > 0:
            sibling = value / values[level][rank] * values[level][rank + 1]
            heapq.heappush(frontier, (sibling, (*path[:-1], rank + 1)))
        if len(path) < depth:
            heapq.heappush(frontier, (value * values[level + 1][0], (*path, 0)))
    chosen.sort(key=lambda path: (len(path), path))
    index = {path: node for node, path in enumerate(chosen)}
    return tuple((index[path[:-1]] if len(path) > 1 else -1, path[-1]) for path in chosen)
