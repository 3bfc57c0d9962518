"""Reports that are tables: the set of skipped sub-layers, the matrix of recycled tokens.

Every function takes the trace and the position of the selected round, and gives a title, traces and
a layout in the light palette.
"""

from __future__ import annotations

from widgets import theme
from widgets.figures.method_parts import LIGHT, RIGHT, Drawn, axis
from widgets.figures.notes import literal
from workbench.core.trace import Trace

SHOWN_ROWS, SHOWN_SUCCESSORS = 7, 4
_SKIPS = ("skip_attention", "skip_mlp", "tried_attention", "tried_mlp")


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
        "text": [[f"{part} {layer}"] * len(rounds) for part, layer in cells],
        "hovertemplate": "search step %{x}: %{text}<extra></extra>",
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
        "xaxis": axis("search step · dark skipped, pale tried · ● agreement, 0 to 1", nticks=8),
        "yaxis": {"domain": [0, 0.26], "range": [-0.06, 1.06], "tickvals": [0, 1]},
        "yaxis2": {
            "domain": [0.32, 1],
            "tickvals": [(most - 1) / 2, most + (most - 1) / 2],
            "ticktext": ["attention", "MLP"],
        },
        "margin": {"l": 74, "r": RIGHT, "t": 34, "b": 34},
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "yref": "y2",
                "y0": most - 0.5,
                "y1": most - 0.5,
                "line": {"color": LIGHT.text, "width": 1},
            }
        ],
    }
    title = f"Skipped sub-layers of {most} layers · agreement {best:.2f} now"
    return title, [grid, line], layout


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
        "margin": {"l": 18, "r": RIGHT, "t": 52, "b": 10},
    }
    title = f"Successors after round {place + 1} · ■ rewritten now"
    return title, [grid], layout
