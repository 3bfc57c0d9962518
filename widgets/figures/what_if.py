"""Expected tokens of each round: as recorded, and under the change, with what is only bounded."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures.notes import note


class WhatIf(NamedTuple):
    """One value a round; ``low`` and ``high`` None where nothing can be said."""

    recorded: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    selected: int


def rows(info: WhatIf) -> list[dict[str, Any]]:
    """One row per round."""
    return [
        {"round": place, "recorded": was, "low": low, "high": high}
        for place, (was, low, high) in enumerate(
            zip(info.recorded, info.low, info.high, strict=True)
        )
    ]


def figure(info: WhatIf, mode: str = "light") -> dict[str, Any]:
    """Two lines of dots and a band; click a round to look at it."""
    light = theme.LIGHT
    places = [place + 1 for place in range(len(info.recorded))]
    middle = [None if a is None else (a + b) / 2 for a, b in zip(info.low, info.high, strict=True)]
    reach = [None if a is None else (b - a) / 2 for a, b in zip(info.low, info.high, strict=True)]
    chosen = [place == info.selected for place in range(len(places))]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "recorded",
            "x": places,
            "y": list(info.recorded),
            "customdata": [place - 1 for place in places],
            "line": {"color": light.neutral, "width": 1.5, "shape": "hvh"},
            "marker": {"symbol": "circle-open", "size": 6, "color": light.muted},
            "hovertemplate": "round %{x}: %{y:.2f} as recorded<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "changed",
            "x": places,
            "y": middle,
            "customdata": [place - 1 for place in places],
            "error_y": {
                "type": "data",
                "array": reach,
                "color": light.accent,
                "thickness": 5,
                "width": 0,
            },
            "marker": {
                "size": [11 if here else 8 for here in chosen],
                "color": light.accent,
                "line": {
                    "color": [light.select if here else light.paper for here in chosen],
                    "width": [2.5 if here else 1 for here in chosen],
                },
            },
            "hovertemplate": "round %{x}: %{y:.2f} under the change<extra></extra>",
        },
    ]
    layout = theme.base_layout(
        "what_if",
        "Expected tokens a round",
        xaxis={
            "title": {"text": "round · ○ recorded ● changed ┃ where only bounds are known"},
            "range": [0.4, max(len(places), 1) + 0.6],
            "nticks": 12,
            "tickformat": "d",
        },
        yaxis={"title": {"text": "tokens"}, "rangemode": "tozero", "nticks": 5},
        margin={"l": 48, "r": 18, "t": 38, "b": 38},
    )
    if not places:
        traces, layout["annotations"] = [], [note("no round was recorded")]
    picture = {"data": traces, "layout": layout, "config": theme.config("what_if")}
    return theme.in_mode(picture, mode)
