"""How tokens wander from expert to expert, layer by layer: ribbons as wide as their share."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import note

NAME = "expert_flow"
TITLE = "Flow of tokens between experts"
MOST = 600  # ribbons drawn; the thinnest beyond are left out, and it is said


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
    """One expert of one layer: where it stands (0 top, 1 bottom) and how much flows through."""

    layer: int
    expert: int
    share: float
    middle: float


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
        whole, pad = sum(here.values()), 0.02
        scale, y = (1 - pad * (len(here) - 1)) / whole, 0.0
        for expert, share in here.items():
            found.append(Box(layer, expert, share, y + scale * share / 2))
            y += scale * share + pad
    return found


def figure(info: ExpertFlow, mode: str = "light") -> dict[str, Any]:
    """A Sankey diagram; customdata: ``"layer:from:to"`` of a ribbon, ``"layer:expert"`` of a box.

    Text, because one of the two hosts passes on only plain values of such a diagram.
    """
    made = parts.layout(NAME, TITLE, _note(info), margin={"l": 18, "r": 26, "b": 30})
    ribbons, found = shown(info), boxes(info)
    made["xaxis"] = {"visible": False, "range": [0, 1]}
    made["yaxis"] = {"visible": False, "range": [0, 1]}
    if not found:
        made["annotations"] = [note("no token routed yet")]
        return parts.picture(NAME, [], made, mode)
    place = {(box.layer, box.expert): index for index, box in enumerate(found)}
    last = max(box.layer for box in found) or 1
    made["annotations"] = [_under(info, layer, layer / last) for layer in range(last + 1)]
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "orientation": "h",
        "valueformat": ".1%",
        "textfont": {"size": 10, "color": theme.LIGHT.text},
        "node": {
            "pad": 5,
            "thickness": 9,
            "line": {"width": 0},
            "label": [str(box.expert) for box in found],
            "color": [parts.CYCLE[box.expert % len(parts.CYCLE)] for box in found],
            "x": [_inside(box.layer / last) for box in found],
            "y": [_inside(box.middle) for box in found],
            "customdata": [f"{box.layer}:{box.expert}" for box in found],
            "hovertemplate": "expert %{label}: %{value:.1%}<extra></extra>",
        },
        "link": {
            "source": [place[layer, one] for layer, one, _, _ in ribbons],
            "target": [place[layer + 1, two] for layer, _, two, _ in ribbons],
            "value": [share for *_, share in ribbons],
            "color": [parts.sheer(parts.CYCLE[p[1] % len(parts.CYCLE)], 0.34) for p in ribbons],
            "customdata": [f"{layer}:{one}:{two}" for layer, one, two, _ in ribbons],
            "hovertemplate": "expert %{source.label} → %{target.label}: %{value:.1%}"
            "<extra></extra>",
        },
    }
    return parts.picture(NAME, [trace], made, mode)


def _inside(share: float) -> float:
    """Plotly takes 0 for "not said"."""
    return min(0.999, max(0.001, share))


def _note(info: ExpertFlow) -> str:
    left = sum((parts.finite(pair[3]) or 0.0) > 0 for pair in info.pairs) - len(shown(info))
    rest = f" · {left} thin ribbons left out" if left else ""
    return f"ribbons: share of tokens, colour of their source{rest}"


def _under(info: ExpertFlow, layer: int, share: float) -> dict[str, Any]:
    number = info.layers[layer] if layer < len(info.layers) else layer
    words = f"layer {number}" if layer == 0 else str(number)
    anchor = "left" if layer == 0 else "right" if share == 1 else "center"
    at = {"x": share, "xanchor": anchor, "y": 0, "yanchor": "top", "yshift": -6}
    return {**note(words), **at, "font": {"size": 11, "color": theme.LIGHT.muted}}


def svg(info: ExpertFlow, width: float = 480.0) -> str:
    """The static twin: the same boxes and ribbons."""
    body, top = parts.heads(TITLE, _note(info))
    found = boxes(info)
    if not found:
        body.append(draw.text(18, top + 8, "no token routed yet", "muted"))
        return draw.document(width, top + 24, body, TITLE)
    tall, left, right = 180.0, 24.0, width - 34
    last = max(box.layer for box in found) or 1
    spot = {(box.layer, box.expert): box for box in found}
    scale = {
        layer: (1 - 0.02 * (sum(b.layer == layer for b in found) - 1))
        / sum(b.share for b in found if b.layer == layer)
        for layer in range(last + 1)
        if any(b.layer == layer for b in found)
    }

    def across(layer: int) -> float:
        return left + (right - left) * layer / last

    used: dict[tuple[str, int, int], float] = {}
    for layer, one, two, share in shown(info):
        ends = []
        for way, at, expert in (("out", layer, one), ("in", layer + 1, two)):
            box, thick = spot[at, expert], share * scale[at] * tall
            start = top + tall * (box.middle - box.share * scale[at] / 2)
            begin = start + used.get((way, at, expert), 0.0)
            used[way, at, expert] = used.get((way, at, expert), 0.0) + thick
            ends.append((begin, begin + thick))
        body.append(_ribbon(across(layer) + 4, across(layer + 1) - 4, ends, one))
    for box in found:
        high = box.share * scale[box.layer] * tall
        x, y = across(box.layer), top + tall * box.middle - high / 2
        fill = parts.CYCLE[box.expert % len(parts.CYCLE)]
        body.append(
            f'<rect x="{x - 4:.1f}" y="{y:.1f}" width="8" height="{high:.1f}" fill="{fill}"/>'
        )
        body.append(draw.text(x + 7, y + high / 2 + 4, str(box.expert), font_size=10))
    for layer in range(last + 1):
        words = str(info.layers[layer]) if layer < len(info.layers) else str(layer)
        body.append(draw.text(across(layer), top + tall + 16, words, "muted", text_anchor="middle"))
    return draw.document(width, top + tall + 26, body, TITLE)


def _ribbon(x0: float, x1: float, ends: list[tuple[float, float]], expert: int) -> str:
    (a, b), (c, d) = ends
    bend = (x0 + x1) / 2
    path = (
        f"M{x0:.1f},{a:.1f} C{bend:.1f},{a:.1f} {bend:.1f},{c:.1f} {x1:.1f},{c:.1f} "
        f"L{x1:.1f},{d:.1f} C{bend:.1f},{d:.1f} {bend:.1f},{b:.1f} {x0:.1f},{b:.1f} Z"
    )
    fill = parts.CYCLE[expert % len(parts.CYCLE)]
    return f'<path d="{path}" fill="{fill}" fill-opacity="0.34"/>'
