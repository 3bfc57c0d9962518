"""Reports that are amounts: both sides' time, who proposed what, visits of a search.

Every function takes the trace and the position of the selected round, and gives a title, traces and
a layout in the light palette.
"""

from __future__ import annotations

from typing import Any

from widgets import theme
from widgets.figures.method_parts import LIGHT, RIGHT, Drawn, axis
from widgets.figures.notes import literal, note
from workbench.core.trace import Trace

SHOWN_SPANS = 14  # typical pieces of work in the window around the selected round


def lanes(trace: Trace, place: int) -> Drawn:
    """Both sides' work on one clock; wasted work is hatched, the selected round framed."""
    names = list(dict.fromkeys(lane.lane for done in trace.rounds for lane in done.lanes))
    traces = [_work(trace, names, wasted) for wasted in (False, True)]
    every = [lane for done in trace.rounds for lane in done.lanes]
    here = trace.rounds[place].lanes
    typical = sum(lane.end_ms - lane.start_ms for lane in every) / len(every)
    last, span = max(lane.end_ms for lane in every), SHOWN_SPANS * typical
    left = max(0.0, min((here[0].start_ms if here else 0.0) - span / 2, last - span))
    layout = {
        "barmode": "overlay",
        "xaxis": axis("milliseconds · ■ kept ▨ wasted", nticks=7, range=[left, left + span]),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [-0.6, len(names) - 0.4],
            "ticklabelstandoff": 6,
        },
        "shapes": [_frame(here)] if here else [],
        "margin": {"l": 62, "r": RIGHT, "t": 34, "b": 34},
    }
    clock = "simulated clock" if any(lane.simulated for lane in every) else "two threads"
    return f"Draft and target at the same time ({clock})", traces, layout


def _work(trace: Trace, names: list[str], wasted: bool) -> dict[str, Any]:
    """The bars of one fate."""
    rows = [
        (number, lane)
        for number, done in enumerate(trace.rounds)
        for lane in done.lanes
        if (lane.fate == "wasted") == wasted
    ]
    hatched = {
        "color": LIGHT.corrected_fill,
        "line": {"color": LIGHT.corrected, "width": 1},
        "pattern": {"shape": "/", "fgcolor": LIGHT.corrected},
    }
    return {
        "type": "bar",
        "orientation": "h",
        "name": "wasted" if wasted else "kept",
        "base": [lane.start_ms for _, lane in rows],
        "x": [lane.end_ms - lane.start_ms for _, lane in rows],
        "y": [names.index(lane.lane) for _, lane in rows],
        "text": [f"round {number + 1}: {lane.label}" for number, lane in rows],
        "textposition": "none",
        "customdata": [[number] for number, _ in rows],
        "width": 0.7,
        "marker": hatched if wasted else {"color": LIGHT.accent},
        "hovertemplate": "%{text}, %{x:.1f} ms<extra></extra>",
    }


def _frame(here: list[Any]) -> dict[str, Any]:
    """Around the work of the selected round."""
    ends = {"x0": min(a.start_ms for a in here), "x1": max(a.end_ms for a in here)}
    line = {"color": LIGHT.select, "width": 2}
    return {"type": "rect", **ends, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def origins(trace: Trace, place: int) -> Drawn:
    """How many nodes each part proposed over the run, and how many of them were kept."""
    drafted: dict[str, int] = {}
    kept: dict[str, int] = {}
    for done in trace.rounds:
        for node, origin in enumerate(done.report.get("origin", ())):
            name = str(origin)
            drafted[name] = drafted.get(name, 0) + 1
            kept[name] = kept.get(name, 0) + (node in done.path)
    names = sorted(drafted)
    common: dict[str, Any] = {"type": "bar", "orientation": "h", "y": names}
    wasted = [drafted[name] - kept.get(name, 0) for name in names]
    said = [f" {kept.get(name, 0)} of {drafted[name]}" for name in names]
    traces: list[dict[str, Any]] = [
        {**common, "x": [kept.get(name, 0) for name in names], "marker": {"color": LIGHT.accepted},
         "hovertemplate": "kept %{x}<extra></extra>"},
        {**common, "x": wasted, "marker": {"color": LIGHT.neutral}, "text": said,
         "textposition": "outside", "textangle": 0, "textfont": {"size": 11, "color": LIGHT.text},
         "hovertemplate": "not kept %{x}<extra></extra>"},
    ]  # fmt: skip
    most = max(drafted.values(), default=1)
    layout: dict[str, Any] = {"barmode": "stack", "yaxis": {"ticklabelstandoff": 6},
              "xaxis": axis("nodes of the run · green kept, grey not kept", nticks=6,
                            range=[0, most * 1.25]),
              "margin": {"l": 110, "r": RIGHT, "t": 34, "b": 34}}  # fmt: skip
    return "Which part proposed what, and what was kept", traces, layout


def visits(trace: Trace, place: int) -> Drawn:
    """How often the tree search came by each drafted node of the selected round."""
    done = trace.rounds[place]
    counts = list(done.report.get("visits", ()))[: len(done.tokens)]
    labels = [literal(theme.visible(trace.piece(token))) for token in done.tokens]
    colours = [
        {"accepted": LIGHT.accepted, "rejected": LIGHT.corrected}.get(fate, LIGHT.neutral)
        for fate in done.node_fates
    ]
    shapes = ["/" if fate == "rejected" else "" for fate in done.node_fates]
    bars = {
        "type": "bar",
        "x": list(range(len(counts))),
        "y": counts,
        "marker": {"color": colours, "pattern": {"shape": shapes, "fgcolor": LIGHT.paper}},
        "hovertemplate": "%{y} visits<extra></extra>",
    }
    layout: dict[str, Any] = {
        "xaxis": {**axis("drafted node · green kept, hatched refused"), "ticktext": labels,
                  "tickvals": list(range(len(counts))),
                  "tickfont": {"family": theme.MONO, "size": 10}},
        "yaxis": axis("visits", rangemode="tozero", nticks=4),
    }  # fmt: skip
    if not counts:
        layout["annotations"] = [note("nothing was drafted in this round")]
        layout["xaxis"] = layout["yaxis"] = {"visible": False}
    return f"Visits of the tree search in round {place + 1}", [bars], layout
