"""What each verification rule accepts of the same drafts, beside the most that any rule could."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

LETTERS = 32  # of a rule's name that fit before the bars
BLANK = "\u00a0"  # an empty text is taken off the page, and later ones then miss their place
ROOMY = 10  # with so many bars or fewer each has room for two lines


class RuleBar(NamedTuple):
    """One rule: its chance to emit a drafted sibling; None where it does not take such drafts."""

    name: str
    title: str
    accepted: float | None
    variation: float  # total variation of what it emits to p
    lossless: bool  # what it declares
    chosen: bool
    optimum: float  # the most that any lossless rule accepts of these drafts
    drafts: str = ""  # how its siblings are drawn, where that differs between the rules


class RuleBars(NamedTuple):
    """The rules in the order shown; ``drafts`` says what all see, empty where that differs."""

    bars: tuple[RuleBar, ...]
    drafts: str


def rows(info: RuleBars) -> list[dict[str, Any]]:
    """One row per rule."""
    return [
        {
            "rule": bar.name,
            "accepted": bar.accepted,
            "total_variation": bar.variation,
            "optimum": bar.optimum,
        }
        for bar in info.bars
    ]


def figure(info: RuleBars, mode: str = "light") -> dict[str, Any]:
    """Bars by rule and the optimum as a line; a rule that does not emit p is hatched."""
    light = theme.LIGHT
    places = list(range(len(info.bars)))
    exact = [bar.variation < 1e-6 for bar in info.bars]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": places,
        "x": [bar.accepted for bar in info.bars],
        "customdata": [bar.name for bar in info.bars],
        "text": [theme.chance(bar.accepted) if _fits(bar) else "" for bar in info.bars],
        "textposition": "inside",
        "insidetextanchor": "end",
        "constraintext": "none",
        "textangle": 0,
        "textfont": {"size": 11, "color": light.paper},
        "hovertext": [f"at most {bar.optimum:.3f} by any rule" for bar in info.bars],
        "hovertemplate": "%{x:.3f} · %{hovertext}<extra></extra>",
        "marker": {
            "color": [light.accent if ok else light.corrected_fill for ok in exact],
            "line": {
                "color": [
                    light.select if bar.chosen else light.accent if ok else light.corrected
                    for bar, ok in zip(info.bars, exact, strict=True)
                ],
                "width": [2.5 if bar.chosen else 1 for bar in info.bars],
            },
            "pattern": {
                "shape": ["" if ok else "/" for ok in exact],
                "fgcolor": light.corrected,
                "solidity": 0.12,
            },
        },
    }
    said = {
        "type": "scatter",
        "mode": "text",
        "y": places,
        "x": [_beside(bar) for bar in info.bars],
        "text": [_said(bar) for bar in info.bars],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": light.text},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }
    layout = theme.base_layout(
        "rule_acceptance",
        "Chance to emit a drafted token" + (f" · {literal(info.drafts)}" if info.drafts else ""),
        xaxis={"range": [0, 1.06], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        yaxis={
            "tickvals": places,
            "ticktext": [_tick(bar, len(info.bars)) for bar in info.bars],
            "range": [len(info.bars) - 0.4, -0.6],
            "tickfont": {"size": 10.5, "color": light.text},
            "ticklabelstandoff": 6,
        },
        shapes=_bounds(info),
        annotations=_bound_words(info),
        margin={"l": 182, "r": 18, "t": 48, "b": 26},
    )
    if not info.bars:
        layout["annotations"] = [note("no rule takes such drafts")]
    picture = {"data": [bars, said], "layout": layout, "config": theme.config("rule_acceptance")}
    return theme.in_mode(picture, mode)


def _one_bound(info: RuleBars) -> bool:
    """Whether all rules see drafts of the same optimum."""
    return len({round(bar.optimum, 9) for bar in info.bars if bar.accepted is not None}) < 2


def _bounds(info: RuleBars) -> list[dict[str, Any]]:
    """The optimum: a line across where it is one for all, else a piece at every bar."""
    line = {"color": theme.LIGHT.text, "width": 1.4, "dash": "4px,3px"}
    shown = [(n, bar.optimum) for n, bar in enumerate(info.bars) if bar.accepted is not None]
    spans = [(n - 0.46, n + 0.46, best) for n, best in shown]
    if shown and _one_bound(info):
        spans = [(-0.6, len(info.bars) - 0.4, shown[0][1])]
    return [
        {"type": "line", "x0": best, "x1": best, "y0": low, "y1": high, "line": line}
        for low, high, best in spans
    ]


def _bound_words(info: RuleBars) -> list[dict[str, Any]]:
    best = [bar.optimum for bar in info.bars if bar.accepted is not None]
    if not best:
        return []
    one = _one_bound(info)
    words = f"no rule exceeds {theme.chance(best[0])}" if one else "┆ no rule exceeds this"
    place: dict[str, Any] = {"x": best[0], "y": 1, "yref": "paper", "yanchor": "bottom"}
    if not one:
        place |= {"x": 1, "xref": "paper", "xanchor": "right"}
    font = {"size": 11, "color": theme.LIGHT.muted}
    return [{**place, "text": words, "showarrow": False, "font": font}]


def _tick(bar: RuleBar, count: int) -> str:
    """Its name, cut where it is long, and its way of drafting where there is room for a line."""
    title = bar.title.removesuffix(" (wrong)").removesuffix(" (lossy)")
    title = literal(draw.shorten(title, LETTERS))
    shown = f"<b>{title}</b>" if bar.chosen else title
    if not bar.drafts or count > ROOMY:
        return shown
    return f'{shown}<br><span style="font-size:9px">{literal(bar.drafts)}</span>'


def _fits(bar: RuleBar) -> bool:
    """Whether the number has room in its bar, where it cannot touch the line of the optimum."""
    return (bar.accepted or 0.0) > 0.12 and bar.variation < 1e-6


def _beside(bar: RuleBar) -> float:
    """Where the words of a bar begin: inside a long one, else beyond the line of its optimum."""
    if bar.accepted is None:
        return 0.01
    return 0.01 if bar.accepted > 0.55 else max(bar.accepted, bar.optimum) + 0.01


def _said(bar: RuleBar) -> str:
    if bar.accepted is None:
        return "does not take these drafts"
    if bar.variation < 1e-6:
        return BLANK if _fits(bar) else theme.chance(bar.accepted)
    kind = "lossy" if not bar.lossless else "WRONG"
    return f"{theme.chance(bar.accepted)} {kind}: {bar.variation:.2f} off p"
