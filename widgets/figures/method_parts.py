"""What the methods' own charts share: axes, the line at the selected round, dots by fate."""

from __future__ import annotations

from typing import Any

from widgets import theme
from workbench.core.trace import Trace

LIGHT = theme.LIGHT
RIGHT = 42  # margin, px: hosts put the switch to another chart there
Drawn = tuple[str, list[dict[str, Any]], dict[str, Any]]  # title, traces, layout


def axis(text: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": text}, **more}


def rounds_axis(trace: Trace, key: str) -> dict[str, Any]:
    """Rounds from left to right, and under them what the marks mean."""
    ends = [0.4, max(len(trace.rounds), 1) + 0.6]
    return axis(f"round · {key}", range=ends, nticks=8, tickformat="d")


def marker_of(place: int) -> dict[str, Any]:
    """A line at the selected round."""
    line = {"color": LIGHT.select, "width": 2}
    x = place + 1
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def dots(x: list, y: list, name: str, colour: str, symbol: str, rounds: list[int]) -> dict:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "customdata": [[place, place + 1] for place in rounds],
        "marker": {"color": colour, "symbol": symbol, "size": 6},
        "hovertemplate": f"round %{{customdata[1]}}: %{{y:.2f}} · {name}<extra></extra>",
    }
