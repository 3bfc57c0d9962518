"""Several named lines over one axis: a loss against sparsity, acceptance against strength."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

STEPS = 8  # a span of whole numbers up to this has a tick for each
MARKED = 40  # a line of more points is drawn without markers
NAME = "curves"


class Line(NamedTuple):
    """A named line; ``y`` is None where nothing was measured."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


class Curves(NamedTuple):
    """Lines that share their axes.

    Args:
        here: the present setting, ringed; None = none.
        note: one quiet sentence under the title.
    """

    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    here: tuple[float, float] | None = None
    note: str = ""


def rows(info: Curves) -> list[dict[str, Any]]:
    """One row per point."""
    return [
        {"line": line.name, "x": x, "y": y}
        for line in info.lines
        for x, y in zip(line.x, line.y, strict=True)
    ]


def figure(info: Curves, mode: str = "light") -> dict[str, Any]:
    """Lines told apart by colour, dash and marker; ``customdata`` = [line, point]."""
    return drawn(NAME, info, mode)


def drawn(name: str, info: Curves, mode: str, y_axis: dict[str, Any] | None = None) -> dict:
    """The figure under another name and with more said of its y axis."""
    names = [line.name for line in info.lines]
    made = parts.layout(
        name,
        info.title,
        info.note,
        names,  # one name too: plotly leaves the axis' title behind where a legend goes away
        xaxis={"title": {"text": literal(info.x_title)}, **_ticks(info)},
        yaxis={"title": {"text": literal(info.y_title)}, "nticks": 5, **(y_axis or {})},
        margin={"l": 58, "b": 40},
    )
    made["yaxis"] |= {"showgrid": True, "gridcolor": theme.LIGHT.rule}
    data = [_trace(index, line, info) for index, line in enumerate(info.lines)]
    if not any(y is not None for line in info.lines for y in line.y):
        made["annotations"], made["showlegend"] = [note("nothing measured yet")], False
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
        data = []
    elif info.here is not None:
        data.append(_ring(info.here))
    return parts.picture(name, data, made, mode)


def _ticks(info: Curves) -> dict[str, Any]:
    """Few steps of whole numbers are told one by one; between them there is nothing."""
    places = [x for line in info.lines for x in line.x if math.isfinite(x)]
    if places and all(x == int(x) for x in places) and 0 < max(places) - min(places) <= STEPS:
        return {"dtick": 1}
    return {"nticks": 7}


def _trace(index: int, line: Line, info: Curves) -> dict[str, Any]:
    look = parts.look(index)
    about = f"{literal(line.name)}<br>{literal(info.x_title)} %{{x}}"
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(line.x) <= MARKED else "lines",
        "name": literal(line.name),
        "x": [parts.finite(x) for x in line.x],
        "y": [parts.finite(y) for y in line.y],
        "customdata": [[index, point] for point in range(len(line.x))],
        "line": {"color": look.colour, "width": 1.8, "dash": look.dash},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6},
        "hovertemplate": f"{about}<br>{literal(info.y_title)} %{{y:.4g}}<extra></extra>",
        "cliponaxis": False,
    }


def _ring(here: tuple[float, float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "now",
        "showlegend": False,
        "x": [parts.finite(here[0])],
        "y": [parts.finite(here[1])],
        "marker": {
            "symbol": "circle-open",
            "size": 15,
            "color": theme.LIGHT.select,
            "line": {"width": 2.5},
        },
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


# ---- static twin ---------------------------------------------------------------------------------


def svg(info: Curves, width: float = 480.0, *, log: bool = False) -> str:
    """The static twin: the lines, their names below; ``log`` takes the logarithm of y."""
    body, top = parts.heads(info.title, info.note)
    left, right, high = 54.0, width - 18, 150.0
    points = [[_place(x, y, log) for x, y in zip(li.x, li.y, strict=True)] for li in info.lines]
    shown = [p for line in points for p in line if p is not None]
    here = _place(*info.here, log) if info.here else None
    if not shown:
        body.append(draw.text(18, top + 8, "nothing measured yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    spans = [_span([p[axis] for p in [*shown, *([here] if here else [])]]) for axis in (0, 1)]
    (x0, x1), (y0, y1) = spans

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (point[0] - x0) / (x1 - x0), (point[1] - y0) / (y1 - y0)
        return left + across * (right - left), top + 6 + (1 - up) * high

    body += _axes(spans, at, left, right, log, info)
    for index, placed in enumerate(points):
        body += _drawn_line(parts.look(index), placed, at)
    if here:
        x, y = at(here)
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" {_stroke("select")}/>')
    foot = top + high + 44
    for index, line in enumerate(info.lines):
        body += _key(parts.look(index), line.name, foot + index * parts.LINE_PX)
    return draw.document(width, foot + len(info.lines) * parts.LINE_PX, body, info.title)


def _place(x: float, y: float | None, log: bool) -> tuple[float, float] | None:
    if parts.finite(x) is None or y is None or parts.finite(y) is None or (log and y <= 0):
        return None
    return float(x), math.log10(y) if log else float(y)


def _span(values: list[float]) -> tuple[float, float]:
    """From the least to the greatest, a little apart where they are one."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _role(colour: str) -> str:
    """The palette role of a look's colour; one that is no role is drawn as plain text is."""
    return next((r for r in theme.LIGHT.__dict__ if getattr(theme.LIGHT, r) == colour), "muted")


def _stroke(role: str) -> str:
    return f'class="s-{role}" stroke="{getattr(theme.LIGHT, role)}" fill="none" stroke-width="2.5"'


def _axes(spans, at, left, right, log, info) -> list[str]:
    (x0, x1), (y0, y1) = spans
    body = []
    for share in (0.0, 0.5, 1.0):
        value = y0 + share * (y1 - y0)
        _, y = at((x0, value))
        body.append(draw.line(left, y, right, y, "rule"))
        shown = parts.number(10**value if log else value)
        body.append(draw.text(left - 6, y + 4, shown, "muted", text_anchor="end", font_size=11))
    foot = at((x0, y0))[1] + 16
    for share, anchor in ((0.0, "start"), (1.0, "end")):
        value = parts.number(x0 + share * (x1 - x0))
        x = left + share * (right - left)
        body.append(draw.text(x, foot, value, "muted", text_anchor=anchor, font_size=11))
    middle = (left + right) / 2
    titles = f"{info.x_title} · up: {info.y_title}"
    body.append(draw.text(middle, foot, titles, "muted", text_anchor="middle", font_size=11))
    return body


def _drawn_line(look: parts.Look, line: list, at) -> list[str]:
    d, pen = "", "M"
    for point in line:
        if point is None:
            pen = "M"
            continue
        x, y = at(point)
        d, pen = f"{d}{pen}{x:.1f},{y:.1f} ", "L"
    return (
        [draw.path(d.strip(), _role(look.colour), 1.8, stroke_dasharray=_dash(look))] if d else []
    )


def _dash(look: parts.Look) -> str:
    return "none" if look.dash == "solid" else look.dash.replace("px", "").replace(",", " ")


def _key(look: parts.Look, name: str, y: float) -> list[str]:
    sample = draw.line(18, y - 4, 46, y - 4, _role(look.colour), 1.8, stroke_dasharray=_dash(look))
    return [sample, draw.text(52, y, draw.shorten(name, 60), font_size=11)]
