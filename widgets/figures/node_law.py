"""Target and draft law where a node was tested: the overlap can be kept, the residual replaces."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import caption, literal
from widgets.figures.place import Place, node_at, round_at
from workbench.core.trace import Round, Trace

SHOWN = 6
LEFT = 96  # margin that holds the token names


class Bar(NamedTuple):
    """One token of the laws at the node's parent; None = not kept in the trace, or no draft law."""

    label: str
    p: float | None
    q: float | None
    is_node: bool
    overlap: float  # of p and q; for "other" what the named tokens leave of it

    @property
    def residual(self) -> float:
        return (self.p or 0.0) - self.overlap

    @property
    def longest(self) -> float:
        return max(self.p or 0.0, self.q or 0.0)


class LawInfo(NamedTuple):
    """The two laws at a node's parent; the last bar is the mass of all other tokens."""

    label: str
    node: int
    round: int
    fate: str
    depth: int
    bars: tuple[Bar, ...]
    overlap: float | None  # sum of min(p, q); None where there is no q
    chosen: bool  # the token was chosen, not drawn: q is a point mass on it


def info(trace: Trace, at: Place | None = None) -> LawInfo:
    """The laws that decided about ``at.node``; for the root, the law after it without a draft."""
    position, round_ = round_at(trace, at)
    if round_ is None:
        return LawInfo("", -1, -1, "", 0, (), None, False)
    node = node_at(round_, at)
    if node < 0:
        label, fate, depth = theme.visible(trace.piece(round_.root)), "root", 0
    else:
        label = theme.visible(trace.piece(round_.tokens[node]))
        fate, depth = round_.node_fates[node], round_.depth[node]
    p, q = _laws(round_, node)
    overlap = None if q is None else _overlap(p, q)
    bars = _bars(trace, p, q, round_.tokens[node] if node >= 0 else None, overlap or 0.0)
    chosen = node >= 0 and round_.q_node is None
    return LawInfo(label, node, position, fate, depth, bars, overlap, chosen)


def _laws(round_: Round, node: int) -> tuple[dict[int, float], dict[int, float] | None]:
    """What is known of p and q where the node was tested; the rest of each mass is not kept."""
    row = 0 if node < 0 else round_.parent[node] + 1
    top = round_.p_top[row] if round_.p_top else None
    p = dict(zip(top.ids, top.probs, strict=True)) if top else {}
    if node < 0:
        return p, None
    token = round_.tokens[node]
    p[token] = round_.p_node[node]
    if round_.q_node is None:
        return p, {token: 1.0}
    law = round_.q_top[node] if round_.q_top else None
    q = dict(zip(law.ids, law.probs, strict=True)) if law else {}
    q[token] = round_.q_node[node]
    return p, q


def _overlap(p: dict[int, float], q: dict[int, float]) -> float:
    """Sum of min(p, q); masses that were not kept count as overlapping, so an upper bound."""
    known = sum(min(p.get(token, 0.0), q.get(token, 0.0)) for token in {*p, *q})
    return min(1.0, known + min(max(0.0, 1 - sum(p.values())), max(0.0, 1 - sum(q.values()))))


def _bars(
    trace: Trace,
    p: dict[int, float],
    q: dict[int, float] | None,
    token: int | None,
    overlap: float,
) -> tuple[Bar, ...]:
    laws = q or {}
    if not p and not laws:
        return ()
    ranked = sorted({*p, *laws}, key=lambda i: (-max(p.get(i, 0.0), laws.get(i, 0.0)), i))
    shown = ranked[:SHOWN]
    if token is not None and token not in shown:
        shown[-1] = token
    bars = [
        Bar(
            theme.visible(trace.piece(i)),
            _known(p, i),
            _known(laws, i) if q else None,
            i == token,
            min(p.get(i, 0.0), laws.get(i, 0.0)),
        )
        for i in shown
    ]
    left = max(0.0, overlap - sum(bar.overlap for bar in bars))
    rest_p = max(0.0, 1 - sum(bar.p or 0.0 for bar in bars))
    rest_q = None if q is None else max(0.0, 1 - sum(bar.q or 0.0 for bar in bars))
    if rest_p < 0.0005 and (rest_q or 0.0) < 0.0005:
        return tuple(bars)
    return (*bars, Bar("other", rest_p, rest_q, False, min(rest_p, left)))


def _known(law: dict[int, float], token: int) -> float | None:
    """A kept probability; 0 where the kept ones are all the mass; None where it was not kept."""
    return law.get(token, 0.0 if sum(law.values()) > 0.999 else None)


def title(law: LawInfo) -> str:
    """What is looked at, in words."""
    if law.round < 0:
        return "Target and draft"
    if law.node < 0:
        return f"After the root “{law.label}”"
    return f"Node “{law.label}” · depth {law.depth} · {law.fate}"


def legend(law: LawInfo) -> str:
    """The line under the bars."""
    if not law.bars:
        return "no round yet" if law.round < 0 else "no law was recorded here"
    if law.overlap is None:
        return "p target"
    q = "q one chosen token" if law.chosen else "q draft"
    return f"p target ■ · {q} □ · overlap {theme.chance(law.overlap)}"


def rows(law: LawInfo) -> list[dict[str, Any]]:
    """One row per bar."""
    return [
        {"token": bar.label, "p": bar.p, "q": bar.q, "overlap": bar.overlap, "node": bar.is_node}
        for bar in law.bars
    ]


def figure(law: LawInfo, mode: str = "light") -> dict[str, Any]:
    """The bar of p: its overlap with q solid, its residual dotted; q as a hollow bar over it."""
    places = list(range(len(law.bars)))
    layout = theme.base_layout(
        "node_law",
        literal(title(law)),
        barmode="overlay",
        bargap=0.36,
        xaxis={"visible": False, "range": [0, _most(law) * 1.5]},
        yaxis={
            "tickvals": places,
            "ticktext": [_tick(bar) for bar in law.bars],
            "tickfont": {"family": theme.MONO, "size": 11, "color": theme.LIGHT.text},
            "ticklabelstandoff": 6,
            "range": [len(law.bars) - 0.4, -0.6],
        },
        annotations=[caption(legend(law), LEFT)],
        margin={"l": LEFT, "r": 18, "t": 38, "b": 32},
    )
    picture = {"data": _traces(law, places) if law.bars else [], "layout": layout}
    if not law.bars:
        layout["yaxis"] = {"visible": False}
    return theme.in_mode({**picture, "config": theme.config("node_law")}, mode)


def _most(law: LawInfo) -> float:
    return max((bar.longest for bar in law.bars), default=1.0) or 1.0


def _tick(bar: Bar) -> str:
    label = literal(draw.shorten(bar.label, 10))
    return f"<b>{label}</b>" if bar.is_node else label


def _traces(law: LawInfo, places: list[int]) -> list[dict[str, Any]]:
    light = theme.LIGHT
    common = {"type": "bar", "orientation": "h", "y": places, "hoverinfo": "skip"}
    dotted = {"shape": ".", "size": 4, "solidity": 0.45, "fillmode": "overlay"}
    has_q = law.overlap is not None
    solid = [b.overlap if has_q else b.longest for b in law.bars]
    traces = [
        {**common, "name": "overlap", "x": solid,
         "marker": {"color": light.accent}, "width": 0.44},
        {**common, "name": "residual", "base": solid,
         "x": [(b.residual or None) if has_q else None for b in law.bars], "width": 0.44,
         "marker": {"color": light.bonus_fill, "line": {"color": light.accent, "width": 1},
                    "pattern": {**dotted, "fgcolor": light.accent}}},
    ]  # fmt: skip
    if has_q:
        traces.append(
            {**common, "name": "q", "x": [b.q or None for b in law.bars], "width": 0.74,
             "marker": {"color": "rgba(0,0,0,0)", "line": {"color": light.corrected, "width": 1.5}}}
        )  # fmt: skip
    ends = [b.longest for b in law.bars]
    numbers = [_numbers(bar, has_q) for bar in law.bars]
    traces.append(
        {"type": "scatter", "mode": "text", "x": ends, "y": places, "text": numbers,
         "textposition": "middle right", "textfont": {"size": 10.5, "color": light.muted},
         "hovertemplate": "%{customdata}<extra></extra>", "customdata": numbers,
         "cliponaxis": False}
    )  # fmt: skip
    return traces


def _numbers(bar: Bar, paired: bool) -> str:
    p = theme.chance(bar.p)
    return f" {p} / {theme.chance(bar.q)}" if paired else f" {p}"


def svg(law: LawInfo, width: float = 320.0) -> str:
    """The static twin."""
    body, left, high, top = [draw.heading(title(law))], 100.0, 24.0, 36.0
    scale = (width - left - 96) / _most(law)
    for place, bar in enumerate(law.bars):
        y = top + place * high
        label = draw.shorten(bar.label, 10)
        weight = 700 if bar.is_node else 400
        body.append(
            draw.text(left - 8, y + 14, label, mono=True, text_anchor="end", font_size=11.5,
                      font_weight=weight)
        )  # fmt: skip
        solid = bar.overlap if law.overlap is not None else bar.longest
        body.append(draw.rect(left, y + 4, scale * solid, 12, "accent"))
        if law.overlap is not None:
            rest = (left + scale * solid, y + 4.5, scale * bar.residual, 11)
            body.append(
                draw.rect(*rest, "bonus_fill", "accent", stroke_width=1, stroke_dasharray="1.5 2")
            )
            body.append(
                draw.rect(
                    left, y + 1.5, scale * (bar.q or 0.0), 17, None, "corrected", stroke_width=1.3
                )
            )
        end = left + scale * bar.longest
        body.append(
            draw.text(
                end + 5,
                y + 14,
                _numbers(bar, law.overlap is not None).strip(),
                "muted",
                font_size=10.5,
            )
        )
    bottom = top + max(1, len(law.bars)) * high
    body.append(draw.text(18, bottom + 14, legend(law), "muted", font_size=11.5))
    return draw.document(width, bottom + 26, body, title(law))
