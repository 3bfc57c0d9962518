"""One chart for each kind of report: (title, traces, layout) in the light palette.

Every function takes the trace and the position of the selected round.
"""

from __future__ import annotations

from typing import Any

from widgets import theme
from widgets.figures.notes import literal
from workbench.core.trace import Round, Trace

LIGHT = theme.LIGHT
SHOWN_ROWS, SHOWN_SUCCESSORS = 7, 4
Drawn = tuple[str, list[dict[str, Any]], dict[str, Any]]


def _axis(text: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": text}, **more}


def _marker_of(place: int) -> dict[str, Any]:
    """A line at the selected round."""
    line = {"color": LIGHT.select, "width": 2}
    x = place + 1
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _dots(x: list, y: list, name: str, colour: str, symbol: str, rounds: list[int]) -> dict:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "customdata": [[place] for place in rounds],
        "marker": {"color": colour, "symbol": symbol, "size": 6},
        "hovertemplate": f"round %{{customdata[0]}}: %{{y:.2f}} · {name}<extra></extra>",
    }


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
        _dots([p[0] for p in points], [p[1] for p in points], fate, *looks[fate],
              [p[2] for p in points])
        for fate, points in found.items()
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": _axis("round"),
        "yaxis": _axis("confidence", range=[0, 1.05]),
        "shapes": [_marker_of(place)],
    }
    if eta is not None:
        line = {"color": LIGHT.text, "width": 1.2, "dash": "4px,3px"}
        layout["shapes"].append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": eta, "y1": eta, "line": line}
        )
    title = f"Drafting ends below {eta:g} confidence · kept ● refused × untested ○"
    return title, traces, layout


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
        "xaxis": _axis("drafted level", dtick=1),
        "yaxis": _axis("chance of a refusal", range=[0, 1.05]),
        "shapes": shapes,
    }
    return f"Drafting stops once a refusal is likelier than {threshold:g}", traces, layout


def skip_set(trace: Trace, place: int) -> Drawn:
    """Which sub-layers are skipped as the search goes on, and how well the skipped model agrees."""
    rounds = [(n, d.report) for n, d in enumerate(trace.rounds) if "skip_attention" in d.report]
    layers = sorted({layer for _, told in rounds for key in _SKIPS for layer in told.get(key, ())})
    most = max(layers, default=1)
    cells = [(part, layer) for part in ("attention", "mlp") for layer in range(1, most + 1)]
    z = [
        [
            2 * (layer in told.get(f"skip_{part}", ())) + (layer in told.get(f"tried_{part}", ()))
            for _, told in rounds
        ]
        for part, layer in cells
    ]
    x = list(range(len(rounds)))
    scale = [LIGHT.surface, LIGHT.accent_soft, LIGHT.accent, LIGHT.accent]
    steps = [[edge, scale[i]] for i in range(4) for edge in (i / 4, (i + 1) / 4)]
    grid = {
        "type": "heatmap",
        "x": x,
        "y": list(range(len(cells))),
        "z": z,
        "zmin": 0,
        "zmax": 3,
        "colorscale": steps,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "customdata": [[[number] for number, _ in rounds]] * len(cells),
        "hovertemplate": "search step %{x}<extra></extra>",
        "yaxis": "y2",
    }
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": [told["matchness"] for _, told in rounds],
        "customdata": [[number] for number, _ in rounds],
        "line": {"color": LIGHT.corrected, "width": 1.5},
        "marker": {"size": 5},
        "hovertemplate": "agrees with %{y:.2f} of the text<extra></extra>",
    }
    best = rounds[-1][1].get("best", 0.0)
    layout = {
        "xaxis": _axis("search step"),
        "yaxis": _axis("agreement", domain=[0, 0.32], range=[0, 1.05], nticks=3),
        "yaxis2": {
            "domain": [0.38, 1],
            "tickvals": list(range(len(cells))),
            "ticktext": [f"{part[:4]} {layer}" for part, layer in cells],
            "tickfont": {"size": 9, "color": LIGHT.muted},
        },
        "margin": {"l": 62, "r": 18, "t": 34, "b": 34},
    }
    return (
        f"Sub-layers skipped (dark) and tried (pale) · agreement {best:.2f} now",
        [grid, line],
        layout,
    )


_SKIPS = ("skip_attention", "skip_mlp", "tried_attention", "tried_mlp")


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
        _dots(x, rates, "accepted of tested", LIGHT.accent_soft, "circle-open", [n - 1 for n in x]),
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
            "y": [0.02] * len(steps),
            "marker": {"symbol": "triangle-up", "size": 9, "color": LIGHT.corrected},
            "text": [f"loss {told['loss'][0]:.2f} → {told['loss'][1]:.2f}" for _, told in steps],
            "hovertemplate": "training step, %{text}<extra></extra>",
        },
    ]
    told = next((d.report["online"] for d in reversed(trace.rounds) if "online" in d.report), {})
    title = (
        f"Acceptance while learning · ▲ {len(steps)} training steps here ·"
        f" {told.get('taught', 0)} places learnt"
    )
    layout = {
        "xaxis": _axis("round"),
        "yaxis": _axis("accepted of tested", range=[0, 1.05]),
        "shapes": [_marker_of(place)],
    }
    return title, traces, layout


def _trained(done: Round) -> bool:
    return bool(done.report.get("online", {}).get("loss"))


def lanes(trace: Trace, place: int) -> Drawn:
    """Both sides' work on one clock; wasted work is hatched."""
    names = list(dict.fromkeys(lane.lane for done in trace.rounds for lane in done.lanes))
    traces, simulated = [], False
    for fate, look in (
        ("kept", {"color": LIGHT.accent}),
        ("wasted", {"color": LIGHT.corrected_fill, "line": {"color": LIGHT.corrected, "width": 1},
                    "pattern": {"shape": "/", "fgcolor": LIGHT.corrected}}),
    ):  # fmt: skip
        rows = [
            (number, lane)
            for number, done in enumerate(trace.rounds)
            for lane in done.lanes
            if (lane.fate == "wasted") == (fate == "wasted")
        ]
        simulated = simulated or any(lane.simulated for _, lane in rows)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": fate,
                "base": [lane.start_ms for _, lane in rows],
                "x": [lane.end_ms - lane.start_ms for _, lane in rows],
                "y": [names.index(lane.lane) for _, lane in rows],
                "text": [lane.label for _, lane in rows],
                "textposition": "none",
                "customdata": [[number] for number, _ in rows],
                "width": 0.7,
                "marker": look,
                "hovertemplate": "round %{customdata[0]}: %{text}, %{x:.1f} ms<extra></extra>",
            }
        )
    here = trace.rounds[place].lanes
    middle = here[0].start_ms if here else 0.0
    span = 14 * _typical_ms(trace)
    layout = {
        "barmode": "overlay",
        "xaxis": _axis("milliseconds", range=[max(0.0, middle - span / 2), middle + span / 2]),
        "yaxis": {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, 1.6]},
        "margin": {"l": 58, "r": 18, "t": 34, "b": 34},
    }
    clock = "simulated clock" if simulated else "two threads"
    return f"Draft and target at the same time ({clock}) · kept ■ wasted ▨", traces, layout


def _typical_ms(trace: Trace) -> float:
    spans = [lane.end_ms - lane.start_ms for done in trace.rounds for lane in done.lanes]
    return sum(spans) / len(spans) if spans else 1.0


def recycled(trace: Trace, place: int) -> Drawn:
    """The successor matrix as of the selected round; rows that this round rewrote are framed."""
    table: dict[int, list[int]] = {}
    for done in trace.rounds[: place + 1]:
        for token, successors in done.report.get("recycled", ()):
            table.pop(token, None)
            table[token] = successors
    fresh = {token for token, _ in trace.rounds[place].report.get("recycled", ())}
    rows = list(table.items())[-SHOWN_ROWS:]
    text, colours = [], []
    for token, successors in rows:
        shown = [trace.piece(t) for t in (token, *successors[:SHOWN_SUCCESSORS])]
        shown += [""] * (1 + SHOWN_SUCCESSORS - len(shown))
        text.append([literal(theme.visible(piece)[:9]) if piece else "" for piece in shown])
        colours.append([2 if token in fresh else 1, *[int(token in fresh)] * SHOWN_SUCCESSORS])
    steps = [LIGHT.paper, LIGHT.accepted_fill, LIGHT.accent_soft]
    scale = [[edge, steps[i]] for i in range(3) for edge in (i / 3, (i + 1) / 3)]
    grid = {
        "type": "heatmap",
        "z": colours,
        "text": text,
        "texttemplate": "%{text}",
        "textfont": {"family": theme.MONO, "size": 10.5, "color": LIGHT.text},
        "zmin": 0,
        "zmax": 2,
        "colorscale": scale,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "skip",
    }
    heads = ["after", *(f"{n + 1}." for n in range(SHOWN_SUCCESSORS))]
    layout = {
        "xaxis": {"tickvals": list(range(len(heads))), "ticktext": heads, "side": "top"},
        "yaxis": {"visible": False, "autorange": "reversed"},
        "margin": {"l": 18, "r": 18, "t": 52, "b": 10},
    }
    return f"The matrix after round {place + 1}, newest rows last · rewritten now ■", [grid], layout


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
    common = {"type": "bar", "orientation": "h", "y": names}
    wasted = [drafted[name] - kept.get(name, 0) for name in names]
    traces = [
        {**common, "x": [kept[name] for name in names], "marker": {"color": LIGHT.accepted},
         "text": [str(kept[name]) for name in names], "hovertemplate": "kept %{x}<extra></extra>"},
        {**common, "x": wasted, "marker": {"color": LIGHT.neutral},
         "hovertemplate": "not kept %{x}<extra></extra>"},
    ]  # fmt: skip
    layout = {"barmode": "stack", "xaxis": _axis("nodes of the run"),
              "margin": {"l": 110, "r": 18, "t": 34, "b": 34}}  # fmt: skip
    return "Which part proposed what · kept left, not kept right", traces, layout


def visits(trace: Trace, place: int) -> Drawn:
    """How often the tree search came by each drafted node of the selected round."""
    done = trace.rounds[place]
    counts = list(done.report.get("visits", ()))[: len(done.tokens)]
    labels = [literal(theme.visible(trace.piece(token))) for token in done.tokens]
    colours = [
        {"accepted": LIGHT.accepted, "rejected": LIGHT.corrected}.get(fate, LIGHT.neutral)
        for fate in done.node_fates
    ]
    bars = {
        "type": "bar",
        "x": list(range(len(counts))),
        "y": counts,
        "marker": {"color": colours},
        "hovertemplate": "%{y} visits<extra></extra>",
    }
    layout = {
        "xaxis": {"tickvals": list(range(len(counts))), "ticktext": labels,
                  "tickfont": {"family": theme.MONO, "size": 10}},
        "yaxis": _axis("visits"),
    }  # fmt: skip
    return (
        f"Visits of the tree search in round {place + 1} · green was kept, orange refused",
        [bars],
        layout,
    )


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
        "xaxis": _axis("round"),
        "yaxis": _axis("tokens"),
        "shapes": [_marker_of(place)],
    }
    return "Longest suffix found in the corpus ■ and drafted tokens kept ●", traces, layout
