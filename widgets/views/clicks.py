"""What a click in a Panel plot was on: the pane drops ``customdata`` of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def customdata(figure: Mapping[str, Any], point: Mapping[str, Any]) -> Any:
    """The ``customdata`` of a clicked point, found again by its place where a heatmap lost it.

    Args:
        figure: the plotly dict that is shown.
        point: the first of a click's ``points``.
    """
    given, traces = point.get("customdata"), figure.get("data") or []
    curve = point.get("curveNumber")
    if given is not None or not isinstance(curve, int) or not 0 <= curve < len(traces):
        return given
    trace = traces[curve]
    table = trace.get("customdata")
    if trace.get("type") != "heatmap" or not table:
        return None
    row = _position(trace.get("y"), len(table), point.get("y"))
    column = _position(trace.get("x"), len(table[0]), point.get("x"))
    return None if row is None or column is None else table[row][column]


def _position(axis: Sequence[Any] | None, count: int, value: Any) -> int | None:
    """Index of the cell at ``value``; an axis of one more number than cells tells their edges."""
    axis = range(count) if axis is None else axis
    if value in axis and len(axis) == count:
        return list(axis).index(value)
    if len(axis) == count + 1 and isinstance(value, int | float):
        inside = (i for i in range(count) if axis[i] <= value <= axis[i + 1])
        return next(inside, None)
    return None
