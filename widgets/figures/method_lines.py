"""Reports that rise and fall over the rounds: confidence, survival, learning, lookups.

Every function takes the trace and the position of the selected round, and gives a title, traces and
a layout in the light palette.
"""

from __future__ import annotations

from typing import Any

from widgets.figures.method_parts import LIGHT, Drawn, axis, dots, marker_of, rounds_axis
from workbench.core.trace import Round, Trace


def confidence(trace: Trace, place: int) -> Drawn:
    """Each drafted token's confidence by round, against the threshold that ends drafting."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    eta = None
    for number, done in enumerate(trace.rounds):
        values = list(done.report.get("confidence", ()))
        eta = done.report.get("eta", eta)
        for step, value in enumerate(values):
            fate = done.node_fates[step] if step < len(done.tokens) else "untested"
            spread = 0.7 * (step / max(1, len(values) - 1) - 0.5) if len(values) > 1 else 0.0
            found.setdefault(fate, []).append((number + 1 + spread, value, number))
    looks = {
        "accepted": (LIGHT.accepted, "circle"),
        "rejected": (LIGHT.corrected, "x"),
        "untested": (LIGHT.neutral, "circle-open"),
    }
    traces = [
        dots([p[0] for p in points], [p[1] for p in points], fate, *looks[fate],
              [p[2] for p in points])
        for fate, points in found.items()
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": rounds_axis(trace, "● kept × refused ○ untested"),
        "yaxis": axis("confidence", range=[-0.06, 1.06], tickvals=[0, 0.5, 1]),
        "shapes": [marker_of(place)],
    }
    if eta is not None:
        line = {"color": LIGHT.text, "width": 1.2, "dash": "4px,3px"}
        layout["shapes"].append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": eta, "y1": eta, "line": line}
        )
    ends = "" if eta is None else f"; drafting ends below {eta:g}"
    return f"Confidence in each drafted token{ends}", traces, layout


def survival(trace: Trace, place: int) -> Drawn:
    """The chance that all drafted tokens are kept, falling level by level, for the last rounds."""
    traces, threshold = [], None
    for number, done in enumerate(trace.rounds):
        values = done.report.get("survival")
        threshold = done.report.get("threshold", threshold)
        if not values:
            continue
        here = number == place
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if here else "lines",
                "x": list(range(1, len(values) + 1)),
                "y": [1 - value for value in values],
                "customdata": [[number]] * len(values),
                "line": {
                    "shape": "hv",
                    "color": LIGHT.accent if here else LIGHT.edge,
                    "width": 2.5 if here else 1,
                },
                "hovertemplate": f"round {number + 1}, level %{{x}}: %{{y:.2f}}<extra></extra>",
            }
        )
    traces.sort(key=lambda line: line["line"]["width"])
    shapes = []
    if threshold is not None:
        line = {"color": LIGHT.corrected, "width": 1.2, "dash": "4px,3px"}
        ends = {"xref": "paper", "x0": 0, "x1": 1, "y0": threshold, "y1": threshold}
        shapes.append({"type": "line", **ends, "line": line})
    layout = {
        "xaxis": axis("drafted level · thick: the selected round", dtick=1),
        "yaxis": axis("chance", range=[-0.06, 1.06], tickvals=[0, 0.5, 1]),
        "shapes": shapes,
    }
    stops = "" if threshold is None else f"; drafting stops above {threshold:g}"
    return f"Chance of a refusal so far{stops}", traces, layout


def online(trace: Trace, place: int) -> Drawn:
    """Acceptance by round, smoothed, and where a training step happened."""
    rates, smooth, level = [], [], None
    for done in trace.rounds:
        tested = min(done.accepted + 1, max(done.depth, default=0))
        rates.append(done.accepted / tested if tested else None)
        if rates[-1] is not None:
            level = rates[-1] if level is None else 0.8 * level + 0.2 * rates[-1]
        smooth.append(level)
    x = [number + 1 for number in range(len(rates))]
    steps = [(n + 1, d.report["online"]) for n, d in enumerate(trace.rounds) if _trained(d)]
    traces = [
        dots(x, rates, "accepted of tested", LIGHT.accent_soft, "circle-open", [n - 1 for n in x]),
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": smooth,
            "line": {"color": LIGHT.accent, "width": 2.5},
            "hovertemplate": "smoothed %{y:.2f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [at for at, _ in steps],
            "y": [0.0] * len(steps),
            "marker": {"symbol": "triangle-up", "size": 9, "color": LIGHT.corrected},
            "text": [f"loss {told['loss'][0]:.2f} → {told['loss'][1]:.2f}" for _, told in steps],
            "hovertemplate": "training step, %{text}<extra></extra>",
        },
    ]
    told = next((d.report["online"] for d in reversed(trace.rounds) if "online" in d.report), {})
    many = f"{len(steps)} training step{'s' * (len(steps) != 1)}"
    counted = f"{many}, {told.get('taught', 0)} places"
    if not steps:
        counted = f"no step yet, {told.get('waiting', 0)} places wait"
    title = f"Acceptance while learning · {counted}"
    layout = {
        "xaxis": rounds_axis(trace, "○ one round ― smoothed ▲ training step"),
        "yaxis": axis("accepted", range=[-0.06, 1.06], tickvals=[0, 0.5, 1]),
        "shapes": [marker_of(place)],
    }
    return title, traces, layout


def _trained(done: Round) -> bool:
    return bool(done.report.get("online", {}).get("loss"))


def hits(trace: Trace, place: int) -> Drawn:
    """The matched suffix and the places that hold it, by round."""
    rounds = [(n, d.report) for n, d in enumerate(trace.rounds) if "hits" in d.report]
    x, data = [n + 1 for n, _ in rounds], [[n] for n, _ in rounds]
    kept = [trace.rounds[n].accepted for n, _ in rounds]
    traces = [
        {"type": "bar", "x": x, "y": [told["span"] for _, told in rounds], "customdata": data,
         "marker": {"color": LIGHT.accent_soft},
         "text": [str(told["hits"]) for _, told in rounds], "textposition": "none",
         "hovertemplate": "matched %{y} tokens at %{text} places<extra></extra>"},
        {"type": "scatter", "mode": "markers", "x": x, "y": kept, "customdata": data,
         "marker": {"color": LIGHT.accepted, "size": 7},
         "hovertemplate": "kept %{y}<extra></extra>"},
    ]  # fmt: skip
    layout = {
        "xaxis": rounds_axis(trace, "■ tokens matched ● drafted tokens kept"),
        "yaxis": axis("tokens", rangemode="tozero", nticks=4),
        "shapes": [marker_of(place)],
    }
    return "Longest end of the text found in the corpus", traces, layout
