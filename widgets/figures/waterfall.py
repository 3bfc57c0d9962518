"""From a first value through what each change did to it, to the total."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "waterfall"
LETTERS = 17  # of a step's name that fit beside the bars


class Waterfall(NamedTuple):
    """``steps``: the first is a value, the others are changes; the total follows by itself."""

    title: str
    unit: str
    steps: tuple[tuple[str, float], ...]
    note: str = ""


class Step(NamedTuple):
    """One bar from ``low`` to ``high``; ``kind`` is start, up, down or total."""

    name: str
    kind: str
    value: float
    begin: float
    end: float


def steps(info: Waterfall) -> list[Step]:
    """The bars from top to bottom, the total last."""
    found: list[Step] = []
    level = 0.0
    for index, (name, value) in enumerate(info.steps):
        value = parts.finite(value) or 0.0
        kind = "start" if index == 0 else "up" if value >= 0 else "down"
        found.append(Step(name, kind, value, level, level + value))
        level += value
    return [*found, Step("total", "total", level, 0.0, level)] if found else []


def rows(info: Waterfall) -> list[dict[str, Any]]:
    """One row per bar."""
    return [
        {"step": step.name, "kind": step.kind, "value": step.value, "level": step.end}
        for step in steps(info)
    ]


def said(step: Step) -> str:
    """``0.62``, ``▲ +0.08``, ``▼ −0.21``: the way is told without its colour."""
    if step.kind in ("start", "total"):
        return parts.number(step.value)
    sign, way = ("+", "▲") if step.kind == "up" else ("−", "▼")
    return f"{way} {sign}{parts.number(abs(step.value))}"


def figure(info: Waterfall, mode: str = "light") -> dict[str, Any]:
    """Lying bars, joined by thin lines; ``customdata`` = index of the step."""
    bars = steps(info)
    places, (low, high) = list(range(len(bars))), _span(bars)
    made = parts.layout(
        NAME,
        info.title,
        info.note,
        xaxis={"title": {"text": literal(info.unit)}, "range": [low, high], "nticks": 5},
        yaxis={
            "tickvals": places,
            "ticktext": [_tick(step) for step in bars],
            "tickfont": {"size": 11, "color": theme.LIGHT.text},
            "range": [len(bars) - 0.4, -0.6],
            "ticklabelstandoff": 6,
        },
        shapes=_joins(bars),
        margin={"l": 124, "r": 18, "b": 38},
    )
    if not bars:
        made["annotations"] = [note("nothing changed yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
    return parts.picture(NAME, [_lying(bars, info.unit), _words(bars)] if bars else [], made, mode)


def _lying(bars: list[Step], unit: str) -> dict[str, Any]:
    light = theme.LIGHT
    colours = {
        "start": light.neutral, "up": light.accepted, "down": light.corrected,
        "total": light.accent,
    }  # fmt: skip
    places = list(range(len(bars)))
    return {
        "type": "bar",
        "orientation": "h",
        "y": places,
        "base": [min(step.begin, step.end) for step in bars],
        "x": [abs(step.end - step.begin) for step in bars],
        "customdata": places,
        "hovertext": [f"{literal(step.name)}: {said(step)}" for step in bars],
        "hovertemplate": f"%{{hovertext}} {literal(unit)}<extra></extra>",
        "marker": {"color": [colours[step.kind] for step in bars]},
    }


def _words(bars: list[Step]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "text",
        "y": list(range(len(bars))),
        "x": [max(step.begin, step.end) for step in bars],
        "text": [f" {said(step)}" for step in bars],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": theme.LIGHT.text},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def _tick(step: Step) -> str:
    name = literal(draw.shorten(step.name, LETTERS))
    return f"<b>{name}</b>" if step.kind == "total" else name


def _span(bars: list[Step]) -> tuple[float, float]:
    """Zero and every bar, with room on the right for the words."""
    ends = [end for step in bars for end in (step.begin, step.end)] or [0.0, 1.0]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = (high - low) or 1.0
    return low - room * 0.02 * (low < 0), high + room * 0.32


def _joins(bars: list[Step]) -> list[dict[str, Any]]:
    line = {"color": theme.LIGHT.edge, "width": 1}
    return [
        {"type": "line", "x0": step.end, "x1": step.end, "y0": n + 0.35, "y1": n + 0.65,
         "line": line}
        for n, step in enumerate(bars[:-1])
    ]  # fmt: skip


def svg(info: Waterfall, width: float = 480.0) -> str:
    """The static twin."""
    body, top = parts.heads(info.title, " · ".join(filter(None, (info.note, info.unit))))
    bars = steps(info)
    if not bars:
        body.append(draw.text(18, top + 8, "nothing changed yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    roles = {"start": "neutral", "up": "accepted", "down": "corrected", "total": "accent"}
    left, step_px = 124.0, 22.0
    low, high = _span(bars)

    def at(value: float) -> float:
        return left + (width - left - 18) * (value - low) / (high - low)

    for n, step in enumerate(bars):
        y = top + n * step_px
        x0, x1 = sorted((at(step.begin), at(step.end)))
        name = draw.shorten(step.name, LETTERS)
        body.append(draw.text(left - 8, y + 12, name, text_anchor="end", font_size=11))
        body.append(draw.rect(x0, y, max(x1 - x0, 1.0), 16, roles[step.kind]))
        body.append(draw.text(x1 + 6, y + 12, said(step), font_size=11))
        if n + 1 < len(bars):
            body.append(draw.line(at(step.end), y + 16, at(step.end), y + step_px, "edge"))
    return draw.document(width, top + len(bars) * step_px + 10, body, info.title)
