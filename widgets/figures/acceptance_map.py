"""Depth by round: which drafted levels were kept, which broke the draft, and with what chance."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import note
from widgets.figures.place import Place, children, round_at
from workbench.core.trace import Round, Trace

TITLE = "Acceptance by depth and round"
MARKED_ROUNDS = 120  # more columns than that are too thin for a mark


class Level(NamedTuple):
    """One drafted level of a round: its fate and the chance that a token of it is kept."""

    round: int
    depth: int
    fate: str
    accept: float | None  # None where the walk never came


class MapInfo(NamedTuple):
    """All levels of all rounds; ``selected`` is a position, -1 = none."""

    levels: tuple[Level, ...]
    rounds: int
    depth: int
    selected: int


def info(trace: Trace, at: Place | None = None) -> MapInfo:
    """The levels of a trace. The chance of a level is given that the one above it was kept."""
    levels = [
        level for position, round_ in enumerate(trace.rounds) for level in _levels(position, round_)
    ]
    depth = max((level.depth for level in levels), default=0)
    selected = -1 if at is None else round_at(trace, at)[0]
    return MapInfo(tuple(levels), len(trace.rounds), depth, selected)


def _levels(position: int, round_: Round) -> list[Level]:
    below = children(round_)
    found = []
    for depth in range(1, max(round_.depth, default=0) + 1):
        if depth > len(round_.path) + 1:
            found.append(Level(position, depth, "untested", None))
            continue
        row = round_.path[depth - 2] + 1 if depth > 1 else 0
        chance = min(1.0, sum(round_.accept[child] for child in below[row]))
        if depth <= len(round_.path):
            found.append(Level(position, depth, "accepted", chance))
        else:
            tested = bool(below[row])
            found.append(
                Level(
                    position,
                    depth,
                    "rejected" if tested else "untested",
                    chance if tested else None,
                )
            )
    return found


def rows(levels: MapInfo) -> list[dict[str, Any]]:
    """One row per drafted level."""
    return [level._asdict() for level in levels.levels]


def strength(level: Level) -> float:
    """Signed cell value: kept levels above 0, refused below, never reached at 0; size = chance."""
    if level.accept is None:
        return 0.0
    size = 0.35 + 0.65 * level.accept
    return size if level.fate == "accepted" else -size


def figure(levels: MapInfo, mode: str = "light") -> dict[str, Any]:
    """A heatmap with a cross on each refused level and a frame round the selected round."""
    depth = max(levels.depth, 1)
    layout = theme.base_layout(
        "acceptance_map",
        TITLE,
        xaxis={"range": [0.5, max(levels.rounds, 12) + 0.5], "visible": False},
        yaxis={
            "range": [depth + 0.5, 0.5],
            "dtick": 1 if depth <= 8 else 4,
            "tick0": 1,
            "ticklabelstandoff": 4,
        },
        margin={"l": 42, "r": 42, "t": 38, "b": 14},
        shapes=_frame(levels, depth),
    )
    if not levels.levels:
        layout["annotations"] = [note("nothing drafted yet")]
        layout["yaxis"]["visible"] = False
    data = [_cells(levels, depth), *_crosses(levels)] if levels.levels else []
    picture = {"data": data, "layout": layout, "config": theme.config("acceptance_map")}
    return theme.in_mode(picture, mode)


def _cells(levels: MapInfo, depth: int) -> dict[str, Any]:
    light = theme.LIGHT
    z: list[list[float | None]] = [[None] * levels.rounds for _ in range(depth)]
    words = [[""] * levels.rounds for _ in range(depth)]
    for level in levels.levels:
        z[level.depth - 1][level.round] = round(strength(level), 3)
        known = "" if level.accept is None else f" · chance {theme.chance(level.accept)}"
        words[level.depth - 1][level.round] = f"{level.fate}{known}"
    return {
        "type": "heatmap",
        "x": list(range(1, levels.rounds + 1)),
        "y": list(range(1, depth + 1)),
        "z": z,
        "zmin": -1,
        "zmax": 1,
        "colorscale": [
            [0, light.corrected],
            [0.4999, light.corrected_fill],
            [0.5, light.surface],
            [0.5001, light.accepted_fill],
            [1, light.accepted],
        ],
        "showscale": False,
        "xgap": 1.5 if levels.rounds <= MARKED_ROUNDS else 0,
        "ygap": 2,
        "customdata": [[[i, d] for i in range(levels.rounds)] for d in range(1, depth + 1)],
        "text": words,
        "hovertemplate": "round %{x} · depth %{y}<br>%{text}<extra></extra>",
        "hoverongaps": False,
    }


def _crosses(levels: MapInfo) -> list[dict[str, Any]]:
    refused = [level for level in levels.levels if level.fate == "rejected"]
    if not refused or levels.rounds > MARKED_ROUNDS:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [level.round + 1 for level in refused],
            "y": [level.depth for level in refused],
            "hoverinfo": "skip",
            "marker": {
                "symbol": "x-thin",
                "size": 4,
                "line": {"width": 1, "color": theme.LIGHT.corrected},
            },
        }
    ]


def _frame(levels: MapInfo, depth: int) -> list[dict[str, Any]]:
    if levels.selected < 0 or not levels.levels:
        return []
    at = levels.selected + 1
    return [
        {
            "type": "rect",
            "x0": at - 0.6,
            "x1": at + 0.6,
            "y0": 0.52,
            "y1": depth + 0.48,
            "line": {"color": theme.LIGHT.select, "width": 2},
        }
    ]


def _cell(
    level: Level, left: float, top: float, cell: float, high: float, crossed: bool
) -> list[str]:
    x, y = left + level.round * cell, top + (level.depth - 1) * high
    gap = min(1.0, cell * 0.15)
    box = (x + gap / 2, y + 0.5, cell - gap, high - 1)
    rounded = {"rx": min(2.0, cell / 4)} if cell > 3 else {}
    if level.accept is None:
        return [draw.rect(*box, "surface", **rounded)]
    role = "accepted" if level.fate == "accepted" else "corrected"
    drawn = [draw.rect(*box, role, fill_opacity=f"{abs(strength(level)):.2f}", **rounded)]
    if level.fate == "rejected" and crossed:
        cx, cy, arm = x + cell / 2, y + high / 2, min(2.0, cell / 3)
        cross = f"M{cx - arm:.1f},{cy - arm:.1f} l{2 * arm:.1f},{2 * arm:.1f}"
        cross += f" m0,{-2 * arm:.1f} l{-2 * arm:.1f},{2 * arm:.1f}"
        drawn.append(draw.path(cross, "paper", 1))
    return drawn


def svg(levels: MapInfo, width: float = 480.0) -> str:
    """The static twin: one small square a level, refused ones crossed."""
    left, top, depth = 36.0, 36.0, max(levels.depth, 1)
    cell = (width - left - 18) / max(levels.rounds, 12)
    high = 16.0
    body = [draw.heading(TITLE)]
    for d in range(1, depth + 1):
        if depth <= 8 or d % 4 == 1:
            body.append(draw.text(left - 8, top + d * high - 4, str(d), "muted", text_anchor="end"))
    for level in levels.levels:
        body += _cell(level, left, top, cell, high, levels.rounds <= MARKED_ROUNDS)
    if levels.selected >= 0 and levels.levels:
        x = left + levels.selected * cell
        body.append(
            draw.rect(x - 1, top - 2, cell + 2, depth * high + 4, None, "select", stroke_width=2)
        )
    if not levels.levels:
        body.append(
            draw.text(width / 2, top + 12, "nothing drafted yet", "muted", text_anchor="middle")
        )
    return draw.document(width, top + depth * high + 14, body, TITLE)
