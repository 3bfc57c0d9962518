"""Speed against quality: who is beaten in both by another, and who is not."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "pareto"
NAMED = 6  # points of the frontier that get a letter and a line in the key
LETTERS = 40  # of a name in the key


class Point(NamedTuple):
    """One configuration; more is better in both."""

    name: str
    speed: float
    quality: float
    lossy: bool = False


class Pareto(NamedTuple):
    """Points in any order.

    Args:
        speed_title, quality_title: of the axes, with their units.
    """

    title: str
    speed_title: str
    quality_title: str
    points: tuple[Point, ...]
    note: str = ""


def known(info: Pareto) -> list[Point]:
    """Points that have both values, fastest first."""
    found = [p for p in info.points if None not in (parts.finite(p.speed), parts.finite(p.quality))]
    return sorted(found, key=lambda p: (-p.speed, -p.quality))


def frontier(info: Pareto) -> list[Point]:
    """Points that no other beats or equals in both while beating one, fastest first."""
    found: list[Point] = []
    for point in known(info):
        if not found or point.quality > found[-1].quality:
            found.append(point)
    return found


def rows(info: Pareto) -> list[dict[str, Any]]:
    """One row per point."""
    best = frontier(info)
    return [{**point._asdict(), "on_frontier": point in best} for point in info.points]


def figure(info: Pareto, mode: str = "light") -> dict[str, Any]:
    """Circles are lossless, diamonds lossy; ``customdata`` = index of the point in ``points``."""
    best = frontier(info)
    names = [_key(n, p) for n, p in enumerate(best[:NAMED])]
    made = parts.layout(
        NAME,
        info.title,
        _note(info),
        names,
        xaxis={"title": {"text": literal(_axes(info))}, "nticks": 6},
        yaxis={"nticks": 5},
        margin={"l": 48, "b": 44},
    )
    made["yaxis"] |= {"showgrid": True, "gridcolor": theme.LIGHT.rule}
    if not best:
        made["annotations"] = [note("nothing measured yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
        return parts.picture(NAME, [], made, mode)
    rest = [p for p in known(info) if p not in best[:NAMED]]
    data = [_line(best), _dots(info, rest)] if rest else [_line(best)]
    data += [_lettered(info, n, p) for n, p in enumerate(best[:NAMED])]
    return parts.picture(NAME, data, made, mode)


def _note(info: Pareto) -> str:
    key = "● lossless ◆ lossy" if any(p.lossy for p in info.points) else ""
    return " · ".join(filter(None, (info.note, key)))


def _axes(info: Pareto) -> str:
    """Both titles below: beside a low plot there is no room for one."""
    return f"{info.speed_title} · up: {info.quality_title}"


def _letter(number: int) -> str:
    return "ABCDEFGHIJ"[number]


def _key(number: int, point: Point) -> str:
    return f"{_letter(number)} {draw.shorten(point.name, LETTERS)}"


def _line(best: list[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [p.speed for p in best],
        "y": [p.quality for p in best],
        "line": {"color": theme.LIGHT.accent_soft, "width": 1.6, "shape": "vh"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _marker(points: list[Point], colour: str, size: int) -> dict[str, Any]:
    symbols = ["diamond" if p.lossy else "circle" for p in points]
    return {"color": colour, "size": size, "symbol": symbols}


def _dots(info: Pareto, points: list[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "showlegend": False,
        "x": [p.speed for p in points],
        "y": [p.quality for p in points],
        "customdata": [info.points.index(p) for p in points],
        "marker": _marker(points, theme.LIGHT.neutral, 8),
        "hovertext": [literal(p.name) for p in points],
        "hovertemplate": "%{hovertext}<br>%{x:.3g}, %{y:.4g}<extra></extra>",
        "cliponaxis": False,
    }


def _lettered(info: Pareto, number: int, point: Point) -> dict[str, Any]:
    return {
        **_dots(info, [point]),
        "mode": "markers+text",
        "name": literal(_key(number, point)),
        "showlegend": True,
        "text": [_letter(number)],
        "textposition": "top center",
        "textfont": {"size": 11, "color": theme.LIGHT.text},
        "marker": _marker([point], theme.LIGHT.accent, 10),
    }


# ---- static twin ---------------------------------------------------------------------------------


def svg(info: Pareto, width: float = 480.0) -> str:
    """The static twin: the points, the frontier, and its names below."""
    body, top = parts.heads(info.title, _note(info))
    best, points = frontier(info), known(info)
    if not best:
        body.append(draw.text(18, top + 8, "nothing measured yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    left, right, high = 30.0, width - 30, 150.0
    (x0, x1), (y0, y1) = (_span([p[axis] for p in points]) for axis in (1, 2))

    def at(p: Point) -> tuple[float, float]:
        across, up = (p.speed - x0) / (x1 - x0), (p.quality - y0) / (y1 - y0)
        return left + across * (right - left), top + 16 + (1 - up) * high

    body.append(draw.line(left, top + high + 22, right, top + high + 22, "edge"))
    for point in points:
        x, y = at(point)
        role = "accent" if point in best else "neutral"
        turned = f"rotate(45 {x:.1f} {y:.1f})" if point.lossy else None
        corner = None if point.lossy else 4.0
        body.append(draw.rect(x - 4, y - 4, 8, 8, role, rx=corner, transform=turned))
        if point in best[:NAMED]:
            letter = _letter(best.index(point))
            body.append(draw.text(x, y - 8, letter, text_anchor="middle", font_size=11))
    foot = top + high + 38
    ends = f"right: {info.speed_title}, {parts.number(x0)} to {parts.number(x1)}"
    body.append(draw.text(18, foot, ends, "muted", font_size=11))
    ends = f"up: {info.quality_title}, {parts.number(y0)} to {parts.number(y1)}"
    body.append(draw.text(18, foot + parts.LINE_PX, ends, "muted", font_size=11))
    foot += 2 * parts.LINE_PX + 4
    for number, point in enumerate(best[:NAMED]):
        y = foot + number * parts.LINE_PX
        body.append(draw.text(18, y, _key(number, point), font_size=11))
    return draw.document(width, foot + len(best[:NAMED]) * parts.LINE_PX, body, info.title)


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
