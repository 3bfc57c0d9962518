"""The shape of a tree that is not drawn from a round: its nodes by their chance to be kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.tidy import tidy

NAME = "tree_shape"
LEVEL_PX, LANE_PX, BOX_PX = 54.0, 15.0, 11.0


class TreeShape(NamedTuple):
    """A tree and what each of its nodes is worth.

    Args:
        parent: of each node, -1 = root; parents first.
        chance: of each node to be kept.
        predicted: said in the heading.
    """

    title: str
    parent: tuple[int, ...]
    chance: tuple[float, ...]
    predicted: bool = True
    note: str = ""


def chances(parent: tuple[int, ...], acceptance: tuple[float, ...]) -> tuple[float, ...]:
    """Each node's chance to be kept, from the acceptance of a child by its rank."""
    found, ranks = [1.0], {}
    for above in parent:
        rank = ranks[above] = ranks.get(above, -1) + 1
        found.append(found[above + 1] * (acceptance[rank] if rank < len(acceptance) else 0.0))
    return tuple(found[1:])


def rows(info: TreeShape) -> list[dict[str, Any]]:
    """One row per node."""
    depth = depths(info.parent)
    return [
        {"node": node, "parent": above, "depth": depth[node], "chance": info.chance[node]}
        for node, above in enumerate(info.parent)
    ]


def depths(parent: tuple[int, ...]) -> list[int]:
    """Level of each node, 1 = child of the root."""
    found = [0]
    for above in parent:
        found.append(found[above + 1] + 1)
    return found[1:]


def svg(info: TreeShape, width: float = 330.0) -> str:
    """Levels across, lanes down; the fuller a node, the likelier it is kept."""
    said = "predicted to be the best" if info.predicted else ""
    body, top = parts.heads(info.title, " · ".join(filter(None, (said, info.note))))
    if not info.parent:
        body.append(draw.text(18, top + 8, "no draft at all is fastest", "muted"))
        return draw.document(width, top + 24, body, info.title)
    lanes, depth = tidy(info.parent), [0, *depths(info.parent)]
    level = min(LEVEL_PX, (width - 48) / max(depth))
    lane = LANE_PX if max(lanes) < 16 else 10.0
    places = [(24 + d * level, top + 8 + row * lane) for d, row in zip(depth, lanes, strict=True)]
    for node, above in enumerate(info.parent):
        (x0, y0), (x1, y1) = places[above + 1], places[node + 1]
        middle = (x0 + x1) / 2
        curve = f"M{x0:.1f},{y0:.1f} C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
        body.append(draw.path(curve, "edge", 0.8 + 2.6 * info.chance[node]))
    box = min(BOX_PX, lane - 2)
    for (x, y), chance in zip(places, (1.0, *info.chance), strict=True):
        full = (box - 2) * min(1.0, max(0.0, chance))
        body.append(draw.rect(x - box / 2, y - box / 2, box, box, "paper", "text", rx=2.0))
        body.append(draw.rect(x - box / 2 + 1, y + box / 2 - 1 - full, box - 2, full, "accent"))
    foot = top + 8 + max(lanes) * lane + 22
    body.append(draw.text(18, foot, "filled by its chance to be kept", "muted", font_size=11))
    return draw.document(width, foot + 10, body, info.title)
