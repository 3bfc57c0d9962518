"""What each verification rule accepts of the same drafts, beside the most that any rule could."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures.notes import literal, note


class RuleBar(NamedTuple):
    """One rule: its chance to emit a drafted sibling; None where it does not take such drafts."""

    name: str
    title: str
    accepted: float | None
    variation: float  # total variation of what it emits to p
    lossless: bool  # what it declares
    chosen: bool


class RuleBars(NamedTuple):
    """The rules in the order shown, and the optimum of this way of drawing siblings."""

    bars: tuple[RuleBar, ...]
    optimum: float
    siblings: str


def rows(info: RuleBars) -> list[dict[str, Any]]:
    """One row per rule."""
    return [
        {
            "rule": bar.name,
            "accepted": bar.accepted,
            "total_variation": bar.variation,
            "optimum": info.optimum,
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
        "x": [bar.accepted or 0.0 for bar in info.bars],
        "customdata": [bar.name for bar in info.bars],
        "text": [theme.chance(bar.accepted) if _fits(bar) else "" for bar in info.bars],
        "textposition": "inside",
        "insidetextanchor": "end",
        "constraintext": "none",
        "textangle": 0,
        "textfont": {"size": 11, "color": light.paper},
        "hovertemplate": "%{x:.3f}<extra></extra>",
        "marker": {
            "color": [light.accent if ok else light.corrected_fill for ok in exact],
            "line": {
                "color": [
                    light.select if bar.chosen else light.accent if ok else light.corrected
                    for bar, ok in zip(info.bars, exact, strict=True)
                ],
                "width": [2.5 if bar.chosen else 1 for bar in info.bars],
            },
            "pattern": {"shape": ["" if ok else "/" for ok in exact], "fgcolor": light.corrected},
        },
    }
    said = {
        "type": "scatter",
        "mode": "text",
        "y": places,
        "x": [_beside(bar, info.optimum) for bar in info.bars],
        "text": [_said(bar) for bar in info.bars],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": light.text},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }
    layout = theme.base_layout(
        "rule_acceptance",
        f"Chance to emit a drafted token · {literal(info.siblings)}",
        xaxis={"range": [0, 1.5], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        yaxis={
            "tickvals": places,
            "ticktext": [_tick(bar) for bar in info.bars],
            "range": [len(info.bars) - 0.4, -0.6],
            "tickfont": {"size": 11, "color": light.text},
        },
        shapes=[
            {
                "type": "line",
                "x0": info.optimum,
                "x1": info.optimum,
                "y0": -0.6,
                "y1": len(info.bars) - 0.4,
                "line": {"color": light.text, "width": 1.4, "dash": "4px,3px"},
            }
        ],
        annotations=[
            {
                "x": info.optimum,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "text": f"no rule exceeds {theme.chance(info.optimum)}",
                "showarrow": False,
                "font": {"size": 11, "color": light.muted},
            }
        ],
        margin={"l": 170, "r": 18, "t": 48, "b": 26},
    )
    if not info.bars:
        layout["annotations"] = [note("no rule takes such drafts")]
    picture = {"data": [bars, said], "layout": layout, "config": theme.config("rule_acceptance")}
    return theme.in_mode(picture, mode)


def _tick(bar: RuleBar) -> str:
    title = literal(bar.title if len(bar.title) <= 25 else bar.title[:24] + "…")
    return f"<b>{title}</b>" if bar.chosen else title


def _fits(bar: RuleBar) -> bool:
    """Whether the number has room in its bar, where it cannot touch the line of the optimum."""
    return (bar.accepted or 0.0) > 0.12 and bar.variation < 1e-6


def _beside(bar: RuleBar, optimum: float) -> float:
    """Where the words of a bar begin; beyond the line of the optimum where they would cross it."""
    end = bar.accepted or 0.0
    return max(end, optimum) + 0.01 if end > 0.3 else end


def _said(bar: RuleBar) -> str:
    if bar.accepted is None:
        return "does not take these drafts"
    if bar.variation < 1e-6:
        return "" if _fits(bar) else theme.chance(bar.accepted)
    kind = "lossy" if not bar.lossless else "WRONG"
    return f"{theme.chance(bar.accepted)} · {kind}: {bar.variation:.3f} off p"
