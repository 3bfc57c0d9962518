"""How tokens wander from expert to expert, layer by layer: ribbons as wide as their share.

Drawn from shapes: of plotly's own Sankey one of the two hosts cannot pass on a click.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import note

NAME = "expert_flow"
TITLE = "Flow of tokens between experts"
MOST = 600  # ribbons drawn; the thinnest beyond are left out, and it is said
GAP = 0.02  # between two experts, as a share of the height
BOX = 0.06  # width of an expert, as a share of the way to the next layer
SHEER = 0.34


class ExpertFlow(NamedTuple):
    """Shares of tokens that go from one expert to one of the next layer.

    Args:
        pairs: (layer, expert, expert in the next layer, share); ``layer`` is the position in
            ``layers`` of the layer that the ribbon leaves.
        layers: numbers of the layers, lowest first.
    """

    pairs: tuple[tuple[int, int, int, float], ...]
    expert_count: int
    layers: tuple[int, ...]


class Box(NamedTuple):
    """One expert of one layer from ``low`` to ``high``, 0 = top, 1 = bottom."""

    layer: int
    expert: int
    share: float
    low: float
    high: float


class Ribbon(NamedTuple):
    """What goes from one box to another; both ends from low to high."""

    layer: int
    source: int
    target: int
    share: float
    leaves: tuple[float, float]
    enters: tuple[float, float]


def rows(info: ExpertFlow) -> list[dict[str, Any]]:
    """One row per pair of experts."""
    return [
        {"layer": info.layers[layer], "from": one, "to": two, "share": share}
        for layer, one, two, share in info.pairs
    ]


def shown(info: ExpertFlow) -> list[tuple[int, int, int, float]]:
    """The widest ribbons, in their order, at most :data:`MOST`."""
    found = [pair for pair in info.pairs if (parts.finite(pair[3]) or 0.0) > 0]
    if len(found) <= MOST:
        return found
    least = sorted((pair[3] for pair in found), reverse=True)[MOST - 1]
    return [pair for pair in found if pair[3] >= least][:MOST]


def boxes(info: ExpertFlow) -> list[Box]:
    """Every expert that a shown ribbon touches, layer by layer, in the order of its number."""
    out: dict[tuple[int, int], float] = {}
    into: dict[tuple[int, int], float] = {}
    for layer, one, two, share in shown(info):
        out[layer, one] = out.get((layer, one), 0.0) + share
        into[layer + 1, two] = into.get((layer + 1, two), 0.0) + share
    through = {key: max(out.get(key, 0.0), into.get(key, 0.0)) for key in sorted({*out, *into})}
    found: list[Box] = []
    for layer in sorted({layer for layer, _ in through}):
        here = {expert: share for (at, expert), share in through.items() if at == layer}
        gap = min(GAP, 0.4 / len(here))
        scale, y = (1 - gap * (len(here) - 1)) / sum(here.values()), 0.0
        for expert, share in here.items():
            found.append(Box(layer, expert, share, y, y + scale * share))
            y += scale * share + gap
    return found


def ribbons(info: ExpertFlow) -> list[Ribbon]:
    """The shown ribbons, side by side at both of their boxes."""
    spot = {(box.layer, box.expert): box for box in boxes(info)}
    used: dict[tuple[str, int, int], float] = {}

    def end(way: str, layer: int, expert: int, share: float) -> tuple[float, float]:
        box = spot[layer, expert]
        low = used.get((way, layer, expert), box.low)
        high = low + (box.high - box.low) * share / box.share
        used[way, layer, expert] = high
        return low, high

    return [
        Ribbon(layer, one, two, share, end("out", layer, one, share),
               end("in", layer + 1, two, share))
        for layer, one, two, share in sorted(shown(info))
    ]  # fmt: skip


def outline(ribbon: Ribbon, at: Callable[[float, float], tuple[float, float]]) -> str:
    """An SVG path; ``at`` places (layer, height)."""
    (a, b), (c, d) = ribbon.leaves, ribbon.enters
    x0, x1 = ribbon.layer + BOX / 2, ribbon.layer + 1 - BOX / 2
    bend = (x0 + x1) / 2

    def to(x: float, y: float) -> str:
        across, down = at(x, y)
        return f"{across:.4g},{down:.4g}"

    return (
        f"M{to(x0, a)} C{to(bend, a)} {to(bend, c)} {to(x1, c)} "
        f"L{to(x1, d)} C{to(bend, d)} {to(bend, b)} {to(x0, b)} Z"
    )


def _colour(expert: int) -> str:
    return parts.CYCLE[expert % len(parts.CYCLE)]


def figure(info: ExpertFlow, mode: str = "light") -> dict[str, Any]:
    """Ribbons and boxes; customdata = [layer, from, to] of a ribbon, [layer, expert] of a box."""
    drawn, found = ribbons(info), boxes(info)
    last = max((box.layer for box in found), default=1)
    names = [str(info.layers[n]) if n < len(info.layers) else str(n) for n in range(last + 1)]
    made = parts.layout(
        NAME,
        TITLE,
        _note(info),
        beside=names,
        xaxis={"title": {"text": "layer"}, "range": [-0.08, last + 0.3]},
        yaxis={"visible": False, "range": [1.02, -0.02]},
        shapes=[_ribbon_shape(ribbon) for ribbon in drawn] + [_box_shape(box) for box in found],
        margin={"l": 18, "r": 12, "b": 38},
    )
    if not found:
        made["annotations"] = [note("no token routed yet")]
        made["xaxis"]["visible"] = False
    data = [_ribbon_spots(drawn), _box_spots(found)] if found else []
    return parts.picture(NAME, data, made, mode)


def _ribbon_shape(ribbon: Ribbon) -> dict[str, Any]:
    return {
        "type": "path",
        "path": outline(ribbon, lambda x, y: (x, y)),
        "fillcolor": parts.sheer(_colour(ribbon.source), SHEER),
        "line": {"width": 0},
        "layer": "below",
    }


def _box_shape(box: Box) -> dict[str, Any]:
    ends = {"x0": box.layer - BOX / 2, "x1": box.layer + BOX / 2, "y0": box.low, "y1": box.high}
    fill = {"fillcolor": _colour(box.expert), "line": {"width": 0}}
    return {"type": "rect", **ends, **fill, "layer": "below"}


def _ribbon_spots(drawn: list[Ribbon]) -> dict[str, Any]:
    """Unseen points in the middle of the ribbons, to hover and to click."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [ribbon.layer + 0.5 for ribbon in drawn],
        "y": [(sum(ribbon.leaves) + sum(ribbon.enters)) / 4 for ribbon in drawn],
        "customdata": [[ribbon.layer, ribbon.source, ribbon.target] for ribbon in drawn],
        "hovertext": [
            f"expert {ribbon.source} → {ribbon.target}: {ribbon.share:.1%}" for ribbon in drawn
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"size": 9, "opacity": 0},
    }


def _box_spots(found: list[Box]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [box.layer for box in found],
        "y": [(box.low + box.high) / 2 for box in found],
        "customdata": [[box.layer, box.expert] for box in found],
        "text": [f" {box.expert}" if box.high - box.low > 0.035 else "" for box in found],
        "textposition": "middle right",
        "textfont": {"size": 10, "color": theme.LIGHT.text},
        "hovertext": [f"expert {box.expert}: {box.share:.1%}" for box in found],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"size": 12, "symbol": "square", "opacity": 0},
        "cliponaxis": False,
    }


def _note(info: ExpertFlow) -> str:
    left = sum((parts.finite(pair[3]) or 0.0) > 0 for pair in info.pairs) - len(shown(info))
    rest = f" · {left} thin ribbons left out" if left else ""
    return f"ribbons: share of tokens, colour of their source{rest}"


def svg(info: ExpertFlow, width: float = 480.0) -> str:
    """The static twin: the same boxes and ribbons."""
    body, top = parts.heads(TITLE, _note(info))
    found = boxes(info)
    if not found:
        body.append(draw.text(18, top + 8, "no token routed yet", "muted"))
        return draw.document(width, top + 24, body, TITLE)
    tall, left, last = 180.0, 24.0, max(box.layer for box in found)
    step = (width - left - 36) / last

    def at(x: float, y: float) -> tuple[float, float]:
        return left + step * x, top + tall * y

    for ribbon in ribbons(info):
        fill = f'fill="{_colour(ribbon.source)}" fill-opacity="{SHEER}"'
        body.append(f'<path d="{outline(ribbon, at)}" {fill}/>')
    for box in found:
        (x, y), high = at(box.layer - BOX / 2, box.low), tall * (box.high - box.low)
        size = f'x="{x:.1f}" y="{y:.1f}" width="{BOX * step:.1f}" height="{high:.1f}"'
        body.append(f'<rect {size} fill="{_colour(box.expert)}"/>')
        if box.high - box.low > 0.035:
            label = (x + BOX * step + 3, y + high / 2 + 4)
            body.append(draw.text(*label, str(box.expert), font_size=10))
    for layer in range(last + 1):
        words = str(info.layers[layer]) if layer < len(info.layers) else str(layer)
        x, y = at(layer, 1)
        body.append(draw.text(x, y + 16, words, "muted", text_anchor="middle"))
    return draw.document(width, top + tall + 26, body, TITLE)
