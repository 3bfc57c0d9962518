"""What one rule emits, token by token: kept drafts below, the draw after a refusal on top, p."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures.notes import literal, note


class Refill(NamedTuple):
    """Chances by token; ``kept + redrawn`` is what the rule emits, ``p`` what it must emit."""

    rule: str
    labels: tuple[str, ...]
    kept: tuple[float, ...]
    redrawn: tuple[float, ...]
    p: tuple[float, ...]
    variation: float
    refusal: str = ""


def rows(info: Refill) -> list[dict[str, Any]]:
    """One row per token."""
    return [
        {"token": t, "kept": k, "redrawn": r, "p": p}
        for t, k, r, p in zip(info.labels, info.kept, info.redrawn, info.p, strict=True)
    ]


def figure(info: Refill, mode: str = "light") -> dict[str, Any]:
    """Stacked bars against the level of p; a rule is exact where every stack ends on its line."""
    light = theme.LIGHT
    places = list(range(len(info.labels)))
    common = {"type": "bar", "x": places, "width": 0.56}
    traces = [
        {
            **common,
            "name": "kept",
            "y": list(info.kept),
            "marker": {"color": light.accepted},
            "hovertemplate": "kept %{y:.3f}<extra></extra>",
        },
        {
            **common,
            "name": "redrawn",
            "y": list(info.redrawn),
            "marker": {
                "color": light.bonus_fill,
                "line": {"color": light.accent, "width": 1},
                "pattern": {"shape": ".", "size": 4, "fgcolor": light.accent},
            },
            "hovertemplate": "drawn after a refusal %{y:.3f}<extra></extra>",
        },
    ]
    shapes = [
        {
            "type": "line",
            "x0": place - 0.4,
            "x1": place + 0.4,
            "y0": value,
            "y1": value,
            "line": {"color": light.text, "width": 2},
        }
        for place, value in zip(places, info.p, strict=True)
    ]
    tops = [max(k + r, p) for k, r, p in zip(info.kept, info.redrawn, info.p, strict=True)]
    off = "exactly p" if info.variation < 1e-6 else f"{info.variation:.3f} off p"
    layout = theme.base_layout(
        "refill",
        f"What it emits: {off} · ■ kept ▒ redrawn ▬ p",
        barmode="stack",
        shapes=shapes,
        xaxis={
            "tickvals": places,
            "ticktext": [literal(label) for label in info.labels],
            "tickfont": {"family": theme.MONO, "size": 11, "color": light.text},
        },
        yaxis={"range": [0, max(tops, default=1) * 1.12], "nticks": 4, "title": {"text": "chance"}},
        margin={"l": 50, "r": 18, "t": 38, "b": 26},
    )
    if info.refusal:
        traces, layout["shapes"] = [], []
        layout["title"]["text"] = f"<b>{literal(info.rule)}</b>"
        layout["annotations"] = [note("it does not take such drafts, see the audit")]
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
    picture = {"data": traces, "layout": layout, "config": theme.config("refill")}
    return theme.in_mode(picture, mode)
