"""A table of numbers as shades: ranks by step, load by layer and expert, a router's choices."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "heat"
NUMBERED = (12, 8)  # rows and columns up to which each cell shows its number
NAMED = 16  # letters of a row's name that are shown: token_recycling is one of 15
GAPS = 32  # more columns or rows touch each other


class Heat(NamedTuple):
    """Values by row and column, row 0 at the top; None = not known.

    Args:
        x, y: names of the columns and of the rows.
        diverging: around zero, in two colours; else from zero (or the least) in one.
    """

    title: str
    x_title: str
    y_title: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    unit: str = ""
    note: str = ""
    diverging: bool = False


def rows(info: Heat) -> list[dict[str, Any]]:
    """One row per cell."""
    return [
        {"row": y, "column": x, "value": value}
        for y, line in zip(info.y, info.values, strict=True)
        for x, value in zip(info.x, line, strict=True)
    ]


def span(info: Heat) -> tuple[float, float]:
    """The values at the two ends of the colours."""
    found = [v for line in info.values for v in map(parts.finite, line) if v is not None]
    if info.diverging:
        most = max(map(abs, found), default=1.0) or 1.0
        return -most, most
    low, high = min(0.0, *found) if found else 0.0, max(found, default=1.0)
    return (low, high) if high > low else (low, low + 1.0)


def brief(value: float) -> str:
    """At most four characters, so that it fits its cell: ``.29``, ``-.05``, ``7.1``, ``12``."""
    if abs(value) >= 9.95:
        return parts.number(value) if abs(value) >= 999.5 else f"{value:.0f}"
    if abs(value) >= 0.995 or value == 0:
        return f"{value:.1f}".removesuffix(".0")
    return "0" if abs(value) < 0.005 else f"{value:.2f}".replace("0.", ".", 1)


def figure(info: Heat, mode: str = "light") -> dict[str, Any]:
    """Cells with ``customdata`` = [row, column]; small tables also show their numbers."""
    wide, tall = len(info.x), len(info.y)
    empty = not wide or not tall
    made = parts.layout(
        NAME,
        info.title,
        _note(info),
        beside=info.x,
        xaxis={"title": {"text": literal(info.x_title)}},
        yaxis={
            "title": {"text": literal(info.y_title)},
            **parts.thinned(info.y, 12, NAMED),
            "range": [tall - 0.5, -0.5],
            "ticklabelstandoff": 4,
        },
        margin={"l": (34 if info.y_title else 18) + 7 * _letters(info), "r": 58, "b": 38},
    )
    if empty:
        made["annotations"] = [note("nothing recorded yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
    return parts.picture(NAME, [] if empty else [_cells(info)], made, mode)


def _letters(info: Heat) -> int:
    """Of the longest name of a row, as far as it is shown."""
    return min(NAMED, max(map(len, info.y), default=1))


def _note(info: Heat) -> str:
    return " · ".join(filter(None, (info.note, info.unit)))


def _scale(info: Heat) -> list[list[Any]]:
    light = theme.LIGHT
    if info.diverging:
        return [[0, light.corrected], [0.5, light.surface], [1, light.accent]]
    return [[0, light.surface], [0.5, light.accent_soft], [1, light.accent]]


def _cells(info: Heat) -> dict[str, Any]:
    low, high = span(info)
    wide, tall = len(info.x), len(info.y)
    labels = [[literal(f"{y} · {x}") for x in info.x] for y in info.y]
    cells = {
        "type": "heatmap",
        "x": list(range(wide)),
        "y": list(range(tall)),
        "z": [[parts.finite(value) for value in line] for line in info.values],
        "zmin": low,
        "zmax": high,
        "colorscale": _scale(info),
        "xgap": 1.5 if wide <= GAPS else 0,
        "ygap": 1.5 if tall <= GAPS else 0,
        "customdata": [[[row, column] for column in range(wide)] for row in range(tall)],
        "hovertext": labels,
        "hovertemplate": f"%{{hovertext}}: %{{z:.4g}} {literal(info.unit)}<extra></extra>",
        "hoverongaps": False,
        "colorbar": {
            "thickness": 8,
            "outlinewidth": 0,
            "len": 1,
            "xpad": 8,
            "ypad": 0,
            "tickvals": [low, 0, high] if info.diverging else [low, high],
            "ticktext": [
                parts.number(v) for v in ([low, 0.0, high] if info.diverging else [low, high])
            ],
            "tickfont": {"size": 10, "color": theme.LIGHT.muted},
        },
    }
    if tall <= NUMBERED[0] and wide <= NUMBERED[1]:
        cells["text"] = [
            ["" if v is None else brief(v) for v in map(parts.finite, line)] for line in info.values
        ]
        cells |= {"texttemplate": "%{text}", "textfont": {"size": 10}}
    return cells


def svg(info: Heat, width: float = 480.0) -> str:
    """The static twin: shades by opacity, so that they hold on light and on dark paper."""
    body, top = parts.heads(info.title, _note(info))
    if not info.x or not info.y:
        body.append(draw.text(18, top + 8, "nothing recorded yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    low, high = span(info)
    left = 26.0 + 7 * _letters(info)
    cell, tall = (width - left - 18) / len(info.x), max(3.0, min(18.0, 220 / len(info.y)))
    gap = 1.0 if cell > 4 and tall > 4 else 0.0
    for row, line in enumerate(info.values):
        for column, value in enumerate(map(parts.finite, line)):
            if value is None:
                continue
            share = abs(value) / high if info.diverging else (value - low) / (high - low)
            role = "corrected" if info.diverging and value < 0 else "accent"
            x, y = left + column * cell, top + row * tall
            opacity = f"{0.06 + 0.94 * share:.2f}"
            body.append(draw.rect(x, y, cell - gap, tall - gap, role, fill_opacity=opacity))
    for row in parts.thinned(info.y, 12)["tickvals"]:
        name, y = draw.shorten(info.y[row], NAMED), top + (row + 0.5) * tall + 4
        body.append(draw.text(left - 6, y, name, "muted", text_anchor="end", font_size=11))
    foot = top + len(info.y) * tall + 15
    for column in parts.side_by_side(info.x)["tickvals"]:
        name, x = draw.shorten(info.x[column], 8), left + (column + 0.5) * cell
        body.append(draw.text(x, foot, name, "muted", text_anchor="middle", font_size=11))
    titles = f"{info.y_title} by {info.x_title} · {parts.number(low)} to {parts.number(high)}"
    body.append(draw.text(left, foot + 16, titles, "muted", font_size=11))
    return draw.document(width, foot + 26, body, info.title)
