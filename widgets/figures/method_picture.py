"""The picture that a method has of its own, drawn from what it reported about its rounds.

Which picture a trace has is decided by what its rounds hold, never by the method's name, so that a
new method gets a picture by reporting the same things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import method_bars, method_grids, method_lines
from widgets.figures import svg as draw
from widgets.figures.method_parts import RIGHT
from widgets.figures.notes import note
from widgets.figures.place import Place, round_at
from workbench.core.trace import Trace

TWIN_LINES = 12


class Picture(NamedTuple):
    """A chosen picture: its kind, title, traces and layout, in the light palette."""

    kind: str
    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


Drawn = tuple[str, list[dict[str, Any]], dict[str, Any]]
# What a round reports -> who draws it; the first that some round has is the trace's picture.
KINDS: dict[str, Callable[[Trace, int], Drawn]] = {
    "origin": method_bars.origins,
    "online": method_lines.online,
    "skip_attention": method_grids.skip_set,
    "confidence": method_lines.confidence,
    "survival": method_lines.survival,
    "recycled": method_grids.recycled,
    "visits": method_bars.visits,
    "hits": method_lines.hits,
}


def kind_of(trace: Trace) -> str:
    """Which picture a trace has; empty where its methods reported nothing."""
    if any(done.lanes for done in trace.rounds):
        return "lanes"
    found = {key for done in trace.rounds for key in done.report}
    return next((kind for kind in KINDS if kind in found), "")


def info(trace: Trace, at: Place | None = None) -> Picture:
    """The method's picture with ``at.round`` marked; of kind "" where nothing was reported."""
    kind, place = kind_of(trace), round_at(trace, at)[0]
    if not kind:
        words = "nothing was reported" if trace.rounds else "no round yet"
        hidden = {"visible": False}
        empty = {"annotations": [note(words)], "xaxis": hidden, "yaxis": hidden}
        return Picture("", "The method's own picture", [], empty)
    title, traces, layout = (method_bars.lanes if kind == "lanes" else KINDS[kind])(trace, place)
    return Picture(kind, title, traces, layout)


def rows(picture: Picture) -> list[dict[str, Any]]:
    """One row per point that has a place on both axes, or per cell of a table of words."""
    return [
        {"series": str(trace.get("name", place)), "x": x, "y": y}
        for place, trace in enumerate(picture.traces)
        for x, y in zip(trace.get("x", ()), trace.get("y", ()), strict=False)
    ] or [
        {"series": "cells", "x": column, "y": words}
        for trace in picture.traces
        for line in trace.get("text", ())
        for column, words in enumerate(line)
    ]


def svg(picture: Picture, width: float = 320.0) -> str:
    """The static twin: the title and the first numbers, as these pictures differ too much."""
    body, top = [draw.heading(picture.title)], 44.0
    lines = [f"{row['series']}: {row['x']} · {row['y']}" for row in rows(picture)[:TWIN_LINES]]
    lines = lines or [words["text"] for words in picture.layout.get("annotations", [])]
    for place, line in enumerate(lines):
        body.append(draw.text(18, top + 16 * place, line, "muted", font_size=11))
    return draw.document(width, top + 16 * max(1, len(lines)) + 6, body, picture.title)


def figure(picture: Picture, mode: str = "light") -> dict[str, Any]:
    """The plotly dict."""
    margin = {"l": 48, "r": RIGHT, "t": 34, "b": 34}
    layout = theme.base_layout(
        "method_picture", picture.title, **{"margin": margin, **picture.layout}
    )
    made = {"data": picture.traces, "layout": layout, "config": theme.config("method_picture")}
    return theme.in_mode(made, mode)
