"""The draft tree of one round: what was proposed, what was tested, what was kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import literal
from widgets.figures.place import Place, node_at, round_at
from widgets.figures.tidy import tidy
from workbench.core.trace import Round, Trace


class TreeNode(NamedTuple):
    """One drafted node. ``x`` is its depth, ``y`` its lane (0 = top), ``weight`` 0..1 its edge."""

    node: int
    parent: int
    x: float
    y: float
    fate: str
    label: str
    p: float
    q: float | None
    accept: float
    weight: float


class TreeInfo(NamedTuple):
    """The tree of one round, laid out in units of one level and one lane."""

    round: int  # position in the trace, -1 = there is no round
    round_count: int
    root_label: str
    root_y: float
    nodes: tuple[TreeNode, ...]
    depth: int
    lanes: float
    path: tuple[int, ...]
    end_label: str  # the extra token that verification produced
    end_fate: str
    selected: int


def info(trace: Trace, at: Place | None = None) -> TreeInfo:
    """The tree at ``at.round`` with ``at.node`` selected; an empty trace gives an empty tree."""
    position, round_ = round_at(trace, at)
    if round_ is None:
        return TreeInfo(-1, 0, "", 0.0, (), 0, 1.0, (), "", "", -1)
    lanes = tidy(round_.parent)
    depth, fates = round_.depth, round_.node_fates
    nodes = tuple(
        TreeNode(
            node,
            round_.parent[node],
            float(depth[node]),
            lanes[node + 1],
            fates[node],
            theme.visible(trace.piece(token)),
            round_.p_node[node],
            None if round_.q_node is None else round_.q_node[node],
            round_.accept[node],
            _weight(round_, node),
        )
        for node, token in enumerate(round_.tokens)
    )
    cut = len(round_.emitted) <= len(round_.path)
    return TreeInfo(
        position,
        len(trace.rounds),
        theme.visible(trace.piece(round_.root)),
        lanes[0],
        nodes,
        max(depth, default=0),
        max(lanes) + 1,
        tuple(round_.path),
        "" if cut else theme.visible(trace.piece(round_.bonus)),
        "" if cut else round_.end_fate,
        node_at(round_, at),
    )


def _weight(round_: Round, node: int) -> float:
    """Edge width: how likely the target finds the token there, so thick edges deserve the draft."""
    return max(0.0, min(1.0, round_.p_node[node]))


def sentence(tree: TreeInfo) -> str:
    """How the round ended, in words."""
    if tree.round < 0:
        return ""
    end = f"“{tree.end_label}” ({tree.end_fate})" if tree.end_label else "the end of the text"
    if not tree.nodes:
        return f"nothing drafted: {end}"
    return f"kept {len(tree.path)} of {tree.depth} levels, then {end}"


def tree_data(tree: TreeInfo) -> dict[str, Any]:
    """What the tree view draws, as plain lists."""
    return {
        "round": tree.round,
        "round_count": tree.round_count,
        "root": {"label": tree.root_label, "y": tree.root_y},
        "depth": tree.depth,
        "lanes": tree.lanes,
        "sentence": sentence(tree),
        "nodes": [
            {
                "parent": node.parent,
                "x": node.x,
                "y": round(node.y, 3),
                "fate": node.fate,
                "label": node.label,
                "p": round(node.p, 4),
                "q": None if node.q is None else round(node.q, 4),
                "accept": round(node.accept, 4),
                "weight": round(node.weight, 3),
            }
            for node in tree.nodes
        ],
    }


def rows(tree: TreeInfo) -> list[dict[str, Any]]:
    """One row per node."""
    names = ("node", "parent", "x", "label", "fate", "p", "q", "accept")
    table = [{name: getattr(node, name) for name in names} for node in tree.nodes]
    return [{"depth" if k == "x" else k: v for k, v in row.items()} for row in table]


WIDE, HIGH = 0.64, 0.7  # of a node, in levels and lanes


def figure(tree: TreeInfo, mode: str = "light") -> dict[str, Any]:
    """The tree as a plotly figure: edges and boxes are shapes, labels carry hover and clicks."""
    title = "Draft tree" if tree.round < 0 else f"Draft tree of round {tree.round + 1}"
    layout = theme.base_layout(
        "draft_tree",
        literal(f"{title} · {sentence(tree) or 'no round yet'}"),
        xaxis={"visible": False, "range": [-0.1, max(1, tree.depth) + WIDE + 0.1]},
        yaxis={"visible": False, "range": [max(tree.lanes, 3) - 0.4, -0.6]},
        shapes=_shapes(tree) if tree.round >= 0 else [],
    )
    data = [_labels(tree)] if tree.round >= 0 else []
    picture = {"data": data, "layout": layout, "config": theme.config("draft_tree")}
    return theme.in_mode(picture, mode)


def _shapes(tree: TreeInfo) -> list[dict[str, Any]]:
    """Untested edges below rejected below accepted ones, then the boxes."""
    places = {-1: (0.0, tree.root_y)} | {n.node: (n.x, n.y) for n in tree.nodes}
    order = ("untested", "rejected", "accepted")
    edges = [
        _edge(places[node.parent], node)
        for node in sorted(tree.nodes, key=lambda node: order.index(node.fate))
    ]
    boxes = [_frame(places[-1], "root", tree.selected == -1)]
    for node in tree.nodes:
        boxes.append(_frame((node.x, node.y), node.fate, node.node == tree.selected))
        if node.fate == "rejected":  # struck, so that the fate survives greyscale
            line = {"color": theme.LIGHT.corrected, "width": 1.2}
            x0, x1 = node.x + 0.05, node.x + WIDE - 0.05
            boxes.append(
                {"type": "line", "x0": x0, "x1": x1, "y0": node.y, "y1": node.y, "line": line}
            )
    return [{"layer": "below", **shape} for shape in (*edges, *boxes)]


def _edge(above: tuple[float, float], node: TreeNode) -> dict[str, Any]:
    x0, y0, middle = above[0] + WIDE, above[1], (above[0] + WIDE + node.x) / 2
    role, width, dash = edge_look(node)
    return {
        "type": "path",
        "path": f"M{x0},{y0} C{middle},{y0} {middle},{node.y} {node.x},{node.y}",
        "line": {
            "color": getattr(theme.LIGHT, role),
            "width": round(width, 2),
            "dash": "5px,3px" if dash else "solid",
        },
    }


def edge_look(node: TreeNode) -> tuple[str, float, str | None]:
    """Palette role, width in pixels and dash of the edge that leads to a node."""
    if node.fate == "accepted":
        return "accepted", 3 + 2.4 * node.weight, None
    if node.fate == "rejected":
        return "corrected", 2.4, theme.FATES["rejected"].dash
    return "edge", 1 + 3.6 * node.weight, None


def _frame(at: tuple[float, float], fate: str, chosen: bool) -> dict[str, Any]:
    fill, border, dash, _ = BOXES[fate]
    line = {
        "color": getattr(theme.LIGHT, border),
        "width": 1.2,
        "dash": "3px,2px" if dash else "solid",
    }
    if chosen:
        line = {"color": theme.LIGHT.select, "width": 2.6, "dash": "solid"}
    return {
        "type": "rect",
        "x0": at[0],
        "x1": at[0] + WIDE,
        "y0": at[1] - HIGH / 2,
        "y1": at[1] + HIGH / 2,
        "fillcolor": getattr(theme.LIGHT, fill),
        "line": line,
    }


def _labels(tree: TreeInfo) -> dict[str, Any]:
    inks = [theme.LIGHT.text, *(getattr(theme.LIGHT, BOXES[n.fate][3]) for n in tree.nodes)]
    names = [tree.root_label, *(node.label for node in tree.nodes)]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [WIDE / 2, *(node.x + WIDE / 2 for node in tree.nodes)],
        "y": [tree.root_y, *(node.y for node in tree.nodes)],
        "text": [literal(draw.shorten(name, 9)) for name in names],
        "textfont": {"family": theme.MONO, "size": 11, "color": inks},
        "customdata": [[tree.round, node] for node in range(-1, len(tree.nodes))],
        "hovertext": ["root", *(tooltip(node) for node in tree.nodes)],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"symbol": "square", "size": 22, "color": "rgba(0,0,0,0)"},
        "cliponaxis": False,
    }


def tooltip(node: TreeNode) -> str:
    """Fate, depth and the numbers of a node."""
    drawn = "chosen" if node.q is None else f"q {theme.chance(node.q)}"
    return (
        f"{literal(node.label)} · {node.fate} · depth {node.x:.0f}<br>"
        f"p {theme.chance(node.p)} · {drawn} · accept {theme.chance(node.accept)}"
    )


def svg(tree: TreeInfo, width: float = 700.0) -> str:
    """The static twin, drawn like the live view."""
    title = "Draft tree" if tree.round < 0 else f"Draft tree of round {tree.round + 1}"
    level = max(64.0, min(118.0, (width - 44) / (tree.depth + 0.62)))
    lane, box = (30.0 if tree.lanes <= 14 else 20.0), max(46.0, level * 0.62)
    width = max(width, 44 + tree.depth * level + box)
    lines = draw.text(18, 40, sentence(tree) or "no round yet", "muted", font_size=12)
    body = [draw.heading(title), lines]
    top = 68.0
    if tree.round >= 0:
        places = {-1: (22.0, top + tree.root_y * lane)}
        places |= {n.node: (22 + n.x * level, top + n.y * lane) for n in tree.nodes}
        order = ("untested", "rejected", "accepted")
        for node in sorted(tree.nodes, key=lambda node: order.index(node.fate)):
            body.append(_curve(places[node.parent], places[node.node], box, node))
        body.append(_box(places[-1], box, lane, tree.root_label, "root", tree.selected == -1))
        for node in tree.nodes:
            on = node.node == tree.selected
            body.append(_box(places[node.node], box, lane, node.label, node.fate, on))
    return draw.document(
        width, top + tree.lanes * lane - 4, body, f"{title}: {sentence(tree) or 'no round yet'}"
    )


def _curve(above: tuple[float, float], at: tuple[float, float], box: float, node: TreeNode) -> str:
    x0, x1 = above[0] + box, at[0]
    middle = (x0 + x1) / 2
    d = f"M{x0:.1f},{above[1]:.1f} C{middle:.1f},{above[1]:.1f} {middle:.1f},{at[1]:.1f}"
    d += f" {x1:.1f},{at[1]:.1f}"
    role, width_px, dash = edge_look(node)
    return draw.path(d, role, width_px, stroke_dasharray=dash)


BOXES = {  # fate -> fill, border, dash of the border, text
    "root": ("surface", "text", None, "text"),
    "accepted": ("accepted_fill", "accepted", None, "text"),
    "rejected": ("corrected_fill", "corrected", None, "text"),
    "untested": ("paper", "neutral", "3 2.4", "muted"),
}


def _box(
    at: tuple[float, float], wide: float, lane: float, label: str, fate: str, chosen: bool
) -> str:
    fill, border, dash, ink = BOXES[fate]
    high, size = min(23.0, lane - 4), 12.0 if lane > 24 else 10.0
    words = draw.shorten(label, int((wide - 8) / (size * draw.CHAR)))
    frame = {"stroke_width": 2.6} if chosen else {"stroke_width": 1.2, "stroke_dasharray": dash}
    box = draw.rect(
        at[0], at[1] - high / 2, wide, high, fill, "select" if chosen else border, rx=6, **frame
    )
    name = draw.text(
        at[0] + wide / 2, at[1] + size * 0.35, words, ink, mono=True, text_anchor="middle",
        font_size=size,
    )  # fmt: skip
    if fate == "rejected":
        name += draw.line(at[0] + 5, at[1], at[0] + wide - 5, at[1], "corrected", 1.2)
    return box + name
