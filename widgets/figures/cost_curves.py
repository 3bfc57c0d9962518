"""What a pass costs against its rows, one line a context; predicted curves say that they are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from widgets.figures import curves
from widgets.figures.curves import Curves, Line

NAME = "cost_curves"
TICKS = 9  # that have room beside each other


class PassCost(NamedTuple):
    """Milliseconds of a pass by rows."""

    name: str
    rows: tuple[float, ...]
    ms: tuple[float | None, ...]


class CostCurves(NamedTuple):
    """Curves that share their axes.

    Args:
        predicted: computed for hardware that is not here; said in the heading.
        here: rows and milliseconds of the tree in use, ringed; None = none.
    """

    title: str
    passes: tuple[PassCost, ...]
    predicted: bool = False
    here: tuple[float, float] | None = None
    note: str = ""


def rows(info: CostCurves) -> list[dict[str, Any]]:
    """One row per point."""
    how = "predicted" if info.predicted else "measured"
    return [
        {"pass": line.name, "rows": size, "ms": ms, "how": how}
        for line in info.passes
        for size, ms in zip(line.rows, line.ms, strict=True)
    ]


def figure(info: CostCurves, mode: str = "light") -> dict[str, Any]:
    """Rows by their doublings, milliseconds from zero; ``customdata`` = [line, point]."""
    made = curves.drawn(NAME, _curves(info), mode, {"rangemode": "tozero"})
    sizes = sorted({size for one in info.passes for size in one.rows if size > 0})
    step = max(1, math.ceil(len(sizes) / TICKS))
    made["layout"]["xaxis"] |= {
        "type": "log",
        "tickvals": sizes[::step],
        "ticktext": [f"{size:g}" for size in sizes[::step]],
    }
    return made


def svg(info: CostCurves, width: float = 480.0) -> str:
    """The static twin."""
    return curves.svg(_curves(info), width)


def _curves(info: CostCurves) -> Curves:
    lines = tuple(Line(one.name, one.rows, one.ms) for one in info.passes)
    said = " · ".join(filter(None, ("predicted" if info.predicted else "measured", info.note)))
    about = said if info.passes else info.note
    return Curves(info.title, "rows of a pass", "ms", lines, info.here, about)
