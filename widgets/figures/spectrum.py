"""Singular values on a logarithmic axis: how many directions an update really uses."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets.figures import curves
from widgets.figures.curves import Curves, Line

NAME = "spectrum"


class Spectrum(NamedTuple):
    """Lines of singular values, each from the largest down; ``x`` counts from 1."""

    title: str
    lines: tuple[Line, ...]
    note: str = ""


def rows(info: Spectrum) -> list[dict[str, Any]]:
    """One row per singular value."""
    return [{"line": r["line"], "index": r["x"], "value": r["y"]} for r in curves.rows(_as(info))]


def figure(info: Spectrum, mode: str = "light") -> dict[str, Any]:
    """Falling lines; a value of zero has no logarithm and leaves a gap."""
    axis = {"type": "log", "exponentformat": "power", "dtick": 1, "nticks": 0}
    return curves.drawn(NAME, _as(info), mode, axis)


def svg(info: Spectrum, width: float = 480.0) -> str:
    """The static twin."""
    return curves.svg(_as(info), width, log=True)


def _as(info: Spectrum) -> Curves:
    lines = tuple(
        line._replace(y=tuple(y if y is not None and y > 0 else None for y in line.y))
        for line in info.lines
    )
    return Curves(info.title, "index", "singular value", lines, None, info.note)
