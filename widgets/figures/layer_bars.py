"""One bar a layer, the selected one framed; a tick on each bar tells what it was before."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "layer_bars"
NUMBERED = 8  # bars that have room for their number


class LayerBars(NamedTuple):
    """A value per layer.

    Args:
        unit: of the values, for the axis.
        compare: what each was before, or None.
        selected: index of the framed bar, -1 = none.
    """

    title: str
    unit: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    compare: tuple[float, ...] | None = None
    selected: int = -1
    note: str = ""


def rows(info: LayerBars) -> list[dict[str, Any]]:
    """One row per layer."""
    before = info.compare or (None,) * len(info.values)
    return [
        {"layer": label, "value": value, "before": was}
        for label, value, was in zip(info.labels, info.values, before, strict=True)
    ]


def figure(info: LayerBars, mode: str = "light") -> dict[str, Any]:
    """Bars with ``customdata`` = index of the layer."""
    values, (low, high) = info.values, _span(info)
    made = parts.layout(
        NAME,
        info.title,
        _note(info),
        beside=info.labels,
        xaxis={},
        yaxis={
            "title": {"text": literal(info.unit)},
            "range": [low, high],
            "nticks": 4,
            "zeroline": low < 0,
            "zerolinecolor": theme.LIGHT.edge,
        },
        shapes=_before(info),
        margin={"l": 58, "b": 26},
    )
    if not values:
        made["annotations"] = [note("no layers yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
    return parts.picture(NAME, [_bars(info)] if values else [], made, mode)


def _bars(info: LayerBars) -> dict[str, Any]:
    light, places = theme.LIGHT, list(range(len(info.values)))
    values = [parts.finite(value) for value in info.values]
    numbered = len(values) <= NUMBERED and not info.compare  # else they would meet the ticks
    return {
        "type": "bar",
        "x": places,
        "y": values,
        "customdata": places,
        "text": [parts.number(v) if numbered else "" for v in values],
        "textposition": "outside",
        "textangle": 0,
        "cliponaxis": False,
        "constraintext": "none",
        "textfont": {"size": 10, "color": light.muted},
        "hovertext": [literal(label) for label in info.labels],
        "hovertemplate": f"%{{hovertext}}: %{{y:.4g}} {literal(info.unit)}<extra></extra>",
        "marker": {
            "color": light.accent,
            "line": {
                "color": light.select,
                "width": [2.5 * (place == info.selected) for place in places],
            },
        },
    }


def _note(info: LayerBars) -> str:
    key = "▮ now ━ before" if info.compare else ""
    return " · ".join(filter(None, (info.note, key)))


def _span(info: LayerBars) -> tuple[float, float]:
    """Zero and every bar inside, with room for the numbers."""
    found = [parts.finite(v) or 0.0 for v in (*info.values, *(info.compare or ()), 0.0)]
    low, high = min(found), max(found)
    room = (high - low) * 0.16 or 1.0
    return low - room * (low < 0), high + room * (high > 0 or low == 0)


def _before(info: LayerBars) -> list[dict[str, Any]]:
    line = {"color": theme.LIGHT.text, "width": 2}
    return [
        {"type": "line", "x0": place - 0.44, "x1": place + 0.44, "y0": was, "y1": was, "line": line}
        for place, was in enumerate(map(parts.finite, info.compare or ()))
        if was is not None
    ]


def svg(info: LayerBars, width: float = 480.0) -> str:
    """The static twin."""
    body, top = parts.heads(info.title, _note(info))
    if not info.values:
        body.append(draw.text(18, top + 8, "no layers yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    low, high = _span(info)
    tall, step = 120.0, (width - 36) / len(info.values)

    def up(value: float) -> float:
        return top + tall * (high - value) / (high - low)

    wide = min(step * 0.7, 40.0)
    every = parts.side_by_side(info.labels)["tickvals"]
    for place, value in enumerate(map(parts.finite, info.values)):
        middle = 18 + (place + 0.5) * step
        if value is not None:
            y0, y1 = sorted((up(value), up(0)))
            frame = {"stroke_width": 2.5} if place == info.selected else {}
            role = "select" if frame else None
            body.append(draw.rect(middle - wide / 2, y0, wide, y1 - y0, "accent", role, **frame))
        if place in every:
            label = draw.shorten(info.labels[place], 8)
            foot = top + tall + 15
            body.append(draw.text(middle, foot, label, "muted", text_anchor="middle", font_size=11))
    for place, was in enumerate(map(parts.finite, info.compare or ())):
        if was is not None:
            middle, y = 18 + (place + 0.5) * step, up(was)
            body.append(draw.line(middle - wide * 0.6, y, middle + wide * 0.6, y, "text", 2))
    body.append(draw.line(18, up(0), width - 18, up(0), "edge"))
    return draw.document(width, top + tall + 26, body, info.title)
