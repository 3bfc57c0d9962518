"""A tidy layout: each node of a forest under one root gets a lane, subtrees packed tightly."""

from __future__ import annotations

from collections.abc import Sequence


def tidy(parent: Sequence[int]) -> list[float]:
    """Lane of each row (row 0 = the root, row i+1 = node i); 0 is the top lane.

    *Idea*: Reingold and Tilford's contour walk. A subtree is shifted down only as far as its own
    levels collide with what stands above it, and a parent sits at the middle of its children, so a
    wide static tree needs far fewer lanes than it has leaves.

    Args:
        parent: index of each node's parent, -1 for a child of the root; parents come first.

    Cost: O(nodes * depth).
    """
    rows = len(parent) + 1
    below: list[list[int]] = [[] for _ in range(rows)]
    for node, above in enumerate(parent):
        below[above + 1].append(node + 1)
    shift = [0.0] * rows  # of a row against its parent's lane
    contours: list[tuple[list[float], list[float]]] = [([], [])] * rows
    for row in range(rows - 1, -1, -1):
        contours[row] = _place(below[row], contours, shift)
    lanes = [0.0] * rows
    for row in range(1, rows):
        lanes[row] = lanes[parent[row - 1] + 1] + shift[row]
    top = min(lanes)
    return [lane - top for lane in lanes]


def _place(
    children: list[int], contours: list[tuple[list[float], list[float]]], shift: list[float]
) -> tuple[list[float], list[float]]:
    """Stack the children's subtrees; returns each level's first and last lane, own lane = 0."""
    first: list[float] = []
    last: list[float] = []
    for child in children:
        top, bottom = contours[child]
        down = max((last[i] + 1 - top[i] for i in range(min(len(last), len(top)))), default=0.0)
        shift[child] = down
        for level in range(len(top)):
            if level < len(first):
                last[level] = bottom[level] + down
            else:
                first.append(top[level] + down)
                last.append(bottom[level] + down)
    middle = (shift[children[0]] + shift[children[-1]]) / 2 if children else 0.0
    for child in children:
        shift[child] -= middle
    return [0.0, *(x - middle for x in first)], [0.0, *(x - middle for x in last)]
