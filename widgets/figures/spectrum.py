"""Singular values on a logarithmic axis: how many directions an update really uses."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from widgets.figures import chart_parts as parts
from widgets.figures import curves
from widgets.figures.curves import Curves, Line

NAME = "spectrum"
ROUNDING = 1e-6  # of a line's largest: what is smaller is rounding, not a direction of the update


class Spectrum(NamedTuple):
    """Lines of singular values, each from the largest down; ``x`` counts from 1."""

    title: str
    lines: tuple[Line, ...]
    note: str = ""


def rows(info: Spectrum) -> list[dict[str, Any]]:
    """One row per singular value."""
    return [{"line": r["line"], "index": r["x"], "value": r["y"]} for r in curves.rows(_as(info))]


def figure(info: Spectrum, mode: str = "light") -> dict[str, Any]:
    """Falling lines; they end where only rounding is left, and a value of zero leaves a gap."""
    return curves.drawn(NAME, _as(info), mode, {"type": "log", **_powers(info)})


def _powers(info: Spectrum) -> dict[str, Any]:
    """Ticks at powers of ten, about five of them."""
    found = [math.log10(y) for line in _as(info).lines for y in line.y if y is not None]
    low, high = math.floor(min(found, default=0)), math.ceil(max(found, default=1))
    shown = range(low, high + 1, max(1, math.ceil((high - low) / 5)))
    return {
        "range": [low - 0.1, max(high, low + 1) + 0.1],
        "tickvals": [10.0**n for n in shown],
        "ticktext": [_power(n) for n in shown],
    }


def _power(exponent: int) -> str:
    plain = {0: "1", 1: "10", -1: "0.1"}
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return plain.get(exponent, f"10{raised}")


def svg(info: Spectrum, width: float = 480.0) -> str:
    """The static twin."""
    return curves.svg(_as(info), width, log=True)


def _as(info: Spectrum) -> Curves:
    lines = tuple(_cut(line) for line in info.lines)
    return Curves(info.title, "index", "singular value", lines, None, info.note)


def _cut(line: Line) -> Line:
    """Without zeros, and without the rounding that follows the last direction."""
    found = [parts.finite(y) or 0.0 for y in line.y]
    least = ROUNDING * max(found, default=0.0)
    y = tuple(value if value > least else None for value in found)
    last = max((place + 1 for place, value in enumerate(y) if value is not None), default=0)
    return line._replace(x=line.x[:last], y=y[:last])
