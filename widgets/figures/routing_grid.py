"""Which expert takes which token in which layer: tokens across, layers up, colour and number."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "routing_grid"
NUMBERED = 44  # more tokens leave no room for a number in each cell
TICKS = 24


class RoutingGrid(NamedTuple):
    """The first and second choice of a router, by layer and token.

    Args:
        tokens: pieces of text.
        layers: numbers of the layers that route, lowest first.
        first: expert that weighs most, ``[layer][token]``; -1 = none (dropped).
        second: the next one, of the same shape, or empty.
        weight: of the first, between 0 and 1.
        marked: framed cells as (layer, token), both counted from 0 in this grid.
        said: words before the key under the title.
    """

    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    first: tuple[tuple[int, ...], ...]
    second: tuple[tuple[int, ...], ...]
    weight: tuple[tuple[float, ...], ...]
    expert_count: int
    marked: tuple[tuple[int, int], ...] = ()
    said: str = ""


def title(info: RoutingGrid) -> str:
    """The heading."""
    return f"{info.expert_count} experts by token and layer"


def rows(info: RoutingGrid) -> list[dict[str, Any]]:
    """One row per token and layer."""
    return [
        {
            "layer": number,
            "position": place,
            "token": token,
            "first": info.first[layer][place],
            "second": info.second[layer][place] if info.second else None,
            "weight": info.weight[layer][place],
        }
        for layer, number in enumerate(info.layers)
        for place, token in enumerate(info.tokens)
    ]


def figure(info: RoutingGrid, mode: str = "light") -> dict[str, Any]:
    """A cell by its first expert, a stripe at its foot by the second; customdata = [layer, token].

    There are more experts than colours in some models, so the number in the cell is what counts.
    """
    tall, wide = len(info.layers), len(info.tokens)
    empty = not tall or not wide
    labels = tuple(draw.shorten(theme.visible(token), 8) for token in info.tokens)
    made = parts.layout(
        NAME,
        title(info),
        _note(info),
        xaxis={
            **parts.thinned(labels, TICKS, 8),
            "tickfont": {"family": theme.MONO, "size": 10, "color": theme.LIGHT.text},
            "tickangle": -90,
            "range": [-0.5, wide - 0.5],
        },
        yaxis={
            "title": {"text": "layer"},
            **parts.thinned(tuple(map(str, info.layers)), 12),
            "range": [-0.5, tall - 0.5],
            "ticklabelstandoff": 4,
        },
        shapes=_frames(info),
        margin={"l": 42, "r": 18, "b": 14 + 6.6 * max(map(len, labels), default=1)},
    )
    if empty:
        made["annotations"] = [note("no token routed yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
    data = [] if empty else [_cells(info), *([_stripes(info)] if info.second else [])]
    return parts.picture(NAME, data, made, mode)


def _note(info: RoutingGrid) -> str:
    stripe = "stripe: second" if info.second else ""
    number = "number: first choice" if len(info.tokens) <= NUMBERED else "hover for numbers"
    return " · ".join(filter(None, (info.said, number, stripe)))


def _colour(expert: int) -> int | None:
    return expert % len(parts.CYCLE) if expert >= 0 else None


def _scale() -> list[list[Any]]:
    count = len(parts.CYCLE)
    return [[edge / count, parts.CYCLE[n]] for n in range(count) for edge in (n, n + 1)]


def _common(info: RoutingGrid) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": list(range(len(info.tokens))),
        "zmin": -0.5,
        "zmax": len(parts.CYCLE) - 0.5,
        "colorscale": _scale(),
        "showscale": False,
        "xgap": 1 if len(info.tokens) <= 120 else 0,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
    }


def _hover(info: RoutingGrid, layer: int) -> list[str]:
    second = info.second[layer] if info.second else (None,) * len(info.tokens)
    return [
        f"{literal(theme.visible(token))} · layer {info.layers[layer]}<br>"
        + (f"expert {one} · weight {theme.chance(weight)}" if one >= 0 else "no expert")
        + (f"<br>then expert {two}" if two is not None and two >= 0 else "")
        for token, one, two, weight in zip(
            info.tokens, info.first[layer], second, info.weight[layer], strict=True
        )
    ]


def _cells(info: RoutingGrid) -> dict[str, Any]:
    layers, wide = range(len(info.layers)), len(info.tokens)
    cells = {
        **_common(info),
        "y": list(layers),
        "ygap": 2,
        "z": [[_colour(expert) for expert in info.first[layer]] for layer in layers],
        "customdata": [[[layer, token] for token in range(wide)] for layer in layers],
        "hovertext": [_hover(info, layer) for layer in layers],
    }
    if wide <= NUMBERED:
        cells["text"] = [[str(e) if e >= 0 else "" for e in info.first[layer]] for layer in layers]
        cells |= {"texttemplate": "%{text}", "textfont": {"size": 11 if wide <= TICKS else 9}}
    return cells


def _stripes(info: RoutingGrid) -> dict[str, Any]:
    """Thin cells at the foot of each row; the rows between them are empty."""
    layers, wide = range(len(info.layers)), len(info.tokens)
    edges = [edge for layer in layers for edge in (layer - 0.5, layer - 0.47, layer - 0.29)]
    blank = [None] * wide
    z, data, hover = [], [], []
    for layer in layers:
        z += [blank, [_colour(expert) for expert in info.second[layer]], blank]
        data += [[[layer, token] for token in range(wide)]] * 3
        hover += [_hover(info, layer)] * 3
    shown = {"z": z, "customdata": data, "hovertext": hover}
    return {**_common(info), "y": [*edges, layers[-1] + 0.5], **shown}


def _frames(info: RoutingGrid) -> list[dict[str, Any]]:
    line = {"color": theme.LIGHT.text, "width": 2}
    return [
        {"type": "rect", "x0": token - 0.5, "x1": token + 0.5, "y0": layer - 0.5,
         "y1": layer + 0.5, "line": line}
        for layer, token in info.marked
    ]  # fmt: skip


def svg(info: RoutingGrid, width: float = 480.0) -> str:
    """The static twin; of a long text only the tokens that have room for their numbers."""
    body, top = parts.heads(title(info), _note(info))
    if not info.tokens or not info.layers:
        body.append(draw.text(18, top + 8, "no token routed yet", "muted"))
        return draw.document(width, top + 24, body, title(info))
    shown = min(len(info.tokens), max(1, math.floor((width - 54) / 11)))
    left, tall = 36.0, 18.0
    cell, foot = min(30.0, (width - left - 18) / shown), top + len(info.layers) * tall
    for layer, number in enumerate(info.layers):
        y = foot - (layer + 1) * tall
        name = draw.text(left - 6, y + 13, str(number), "muted", text_anchor="end", font_size=11)
        body.append(name)
        for token in range(shown):
            body += _twin_cell(info, layer, token, left + token * cell, y, cell, tall)
    for token in range(shown):
        x, label = left + (token + 0.5) * cell + 3, theme.visible(info.tokens[token])
        turn = f"rotate(-90 {x:.1f} {foot + 6:.1f})"
        label = draw.shorten(label, 8)
        body.append(
            draw.text(
                x, foot + 6, label, mono=True, font_size=10, text_anchor="end", transform=turn
            )
        )
    return draw.document(width, foot + 66, body, title(info))


def _twin_cell(info, layer, token, x, y, wide, tall) -> list[str]:
    first = info.first[layer][token]
    if first < 0:
        return [draw.rect(x, y, wide - 1, tall - 2, "surface")]
    box = f'x="{x:.1f}" width="{wide - 1:.1f}"'
    body = [
        f'<rect {box} y="{y:.1f}" height="{tall - 2:.1f}" fill="{parts.CYCLE[_colour(first)]}"/>'
    ]
    second = info.second[layer][token] if info.second else -1
    if second >= 0:
        fill = parts.CYCLE[_colour(second)]
        body.append(f'<rect {box} y="{y + tall - 5:.1f}" height="3" fill="{fill}"/>')
    if (layer, token) in info.marked:
        body.append(draw.rect(x, y, wide - 1, tall - 2, None, "text", stroke_width=2))
    ink = parts.ink(parts.CYCLE[_colour(first)])
    return [
        *body,
        f'<text x="{x + wide / 2 - 0.5:.1f}" y="{y + 11:.1f}" font-size="9" text-anchor="middle"'
        f' fill="{ink}">{first}</text>',
    ]
