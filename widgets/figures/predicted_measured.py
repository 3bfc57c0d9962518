"""A predicted value beside the measured one, by size of the draft."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import curves
from widgets.figures.curves import Curves, Line
from widgets.figures.notes import literal, note

NAME = "predicted_measured"


class Pair(NamedTuple):
    """One size; None where the value is not known."""

    name: str
    predicted: float | None
    measured: float | None


class PredictedMeasured(NamedTuple):
    """Pairs in the order of their sizes.

    Args:
        unit: of the values, for the axis.
        baseline: a dotted line.
    """

    title: str
    unit: str
    pairs: tuple[Pair, ...]
    baseline: float = 1.0
    note: str = ""


def rows(info: PredictedMeasured) -> list[dict[str, Any]]:
    """One row per pair."""
    return [{**pair._asdict(), "error": error(pair)} for pair in info.pairs]


def error(pair: Pair) -> float | None:
    """How far the prediction is from what was measured, as a share of that."""
    predicted, measured = parts.finite(pair.predicted), parts.finite(pair.measured)
    if predicted is None or not measured:
        return None
    return predicted / measured - 1


def figure(info: PredictedMeasured, mode: str = "light") -> dict[str, Any]:
    """Filled dots are measured, hollow squares predicted; ``customdata`` = index of the pair."""
    named = ("measured", "predicted")
    made = parts.layout(
        NAME,
        info.title,
        info.note,
        named if info.pairs else (),
        [pair.name for pair in info.pairs],
        xaxis={"range": [-0.5, len(info.pairs) - 0.5]},
        yaxis={"title": {"text": literal(info.unit)}, "nticks": 5, "rangemode": "tozero"},
        margin={"l": 58, "b": 26},
        shapes=[_baseline(info)] if info.pairs else [],
    )
    made["yaxis"] |= {"showgrid": True, "gridcolor": theme.LIGHT.rule}
    if not info.pairs:
        made["annotations"] = [note("nothing measured yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
        return parts.picture(NAME, [], made, mode)
    data = [_gaps(info), *(_dots(info, name) for name in named)]
    return parts.picture(NAME, data, made, mode)


def _dots(info: PredictedMeasured, name: str) -> dict[str, Any]:
    measured = name == "measured"
    colour = theme.LIGHT.accent if measured else theme.LIGHT.corrected
    marker: dict[str, Any] = {"color": colour, "size": 9, "symbol": "circle"}
    if not measured:
        marker = {"color": colour, "size": 11, "symbol": "square-open", "line": {"width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(range(len(info.pairs))),
        "y": [parts.finite(getattr(pair, name)) for pair in info.pairs],
        "customdata": list(range(len(info.pairs))),
        "hovertext": [literal(pair.name) for pair in info.pairs],
        "hovertemplate": f"%{{hovertext}}<br>{name} %{{y:.3g}} {literal(info.unit)}<extra></extra>",
        "marker": marker,
        "cliponaxis": False,
    }


def _gaps(info: PredictedMeasured) -> dict[str, Any]:
    """A thin line between the two values of each size."""
    x: list[float | None] = []
    y: list[float | None] = []
    for place, pair in enumerate(info.pairs):
        ends = parts.finite(pair.predicted), parts.finite(pair.measured)
        if None not in ends:
            x += [place, place, None]
            y += [*ends, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": theme.LIGHT.edge, "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _baseline(info: PredictedMeasured) -> dict[str, Any]:
    line = {"color": theme.LIGHT.text, "width": 1, "dash": "2px,3px"}
    y = info.baseline
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def svg(info: PredictedMeasured, width: float = 480.0) -> str:
    """The static twin: the two as lines over the sizes' order."""
    x = tuple(float(place + 1) for place in range(len(info.pairs)))
    lines = tuple(
        Line(name, x, tuple(getattr(pair, name) for pair in info.pairs))
        for name in ("measured", "predicted")
    )
    names = ", ".join(pair.name for pair in info.pairs)
    axis = f"size: {names}" if names else "size"
    return curves.svg(Curves(info.title, axis, info.unit, lines, None, info.note), width)
