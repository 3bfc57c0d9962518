"""Configurations by rank: a lying bar each with its interval, against plain decoding's line."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "ranked_bars"
SHOWN = 16  # bars that are drawn; the data holds all
LETTERS = 42  # of a name above its bar
ROW_PX = 34.0
WORDS = {"above": "▲", "below": "▼", "open": "●"}


class Ranked(NamedTuple):
    """One bar; ``low`` and ``high`` are its interval, None = not known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    lossy: bool = False


class RankedBars(NamedTuple):
    """Bars in any order; they are drawn from the greatest down.

    Args:
        unit: of the values, for the axis.
        baseline: what every value is held against.
    """

    title: str
    unit: str
    bars: tuple[Ranked, ...]
    baseline: float = 1.0
    note: str = ""


def ranked(info: RankedBars) -> list[Ranked]:
    """From the greatest value down; what is no number comes last."""
    return sorted(
        info.bars, key=lambda b: -(v if (v := parts.finite(b.value)) is not None else -9e9)
    )


def verdict(bar: Ranked, baseline: float) -> str:
    """``above`` or ``below`` where the whole interval is, else ``open``."""
    low, high = parts.finite(bar.low), parts.finite(bar.high)
    if low is None or high is None:
        return "open"
    return "above" if low > baseline else "below" if high < baseline else "open"


def rows(info: RankedBars) -> list[dict[str, Any]]:
    """One row per bar."""
    return [
        {"rank": n + 1, **bar._asdict(), "verdict": verdict(bar, info.baseline)}
        for n, bar in enumerate(ranked(info))
    ]


def figure(info: RankedBars, mode: str = "light") -> dict[str, Any]:
    """Names stand above their bars; ``customdata`` = rank of the bar, 0 = the first."""
    bars = ranked(info)[:SHOWN]
    made = parts.layout(
        NAME,
        info.title,
        _note(info),
        xaxis={"title": {"text": literal(info.unit)}, "range": [0, _end(bars, info)], "nticks": 6},
        yaxis={"range": [len(bars) - 0.35, -0.75], "visible": False},
        shapes=[_baseline(info)] if bars else [],
        margin={"l": 18, "r": 18, "b": 40},
    )
    made["height"] = made["margin"]["t"] + made["margin"]["b"] + ROW_PX * max(3, len(bars))
    if not bars:
        made["annotations"] = [note("nothing measured yet")]
        made["xaxis"]["visible"] = False
    data = [_lying(bars, info), _names(bars), _values(bars, info)] if bars else []
    return parts.picture(NAME, data, made, mode)


def _note(info: RankedBars) -> str:
    left = len(info.bars) - SHOWN
    more = f"first {SHOWN} of {len(info.bars)}" if left > 0 else ""
    known = any(bar.low is not None for bar in info.bars)
    key = "▲ above the line ▼ below ● undecided" if known else ""
    return " · ".join(filter(None, (info.note, more, key)))


def _colour(bar: Ranked, baseline: float) -> str:
    light = theme.LIGHT
    said = {"above": light.accent, "below": light.corrected, "open": light.neutral}
    return said[verdict(bar, baseline)]


def _end(bars: list[Ranked], info: RankedBars) -> float:
    """Room for the greatest end of an interval and the number beside it."""
    ends = [parts.finite(v) or 0.0 for bar in bars for v in (bar.value, bar.high or 0.0)]
    return max([*ends, info.baseline]) * 1.24 or 1.0


def _lying(bars: list[Ranked], info: RankedBars) -> dict[str, Any]:
    values = [parts.finite(bar.value) for bar in bars]
    up, down = [], []
    for bar, value in zip(bars, values, strict=True):
        low, high = parts.finite(bar.low), parts.finite(bar.high)
        known = value is not None and low is not None and high is not None
        up.append(high - value if known else 0.0)
        down.append(value - low if known else 0.0)
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(bars))),
        "x": values,
        "width": 0.34,
        "customdata": list(range(len(bars))),
        "hovertext": [literal(bar.name) for bar in bars],
        "hovertemplate": f"%{{hovertext}}<br>%{{x:.3g}} {literal(info.unit)}<extra></extra>",
        "marker": {
            "color": [_colour(bar, info.baseline) for bar in bars],
            "pattern": {
                "shape": ["/" if bar.lossy else "" for bar in bars],
                "fgcolor": theme.LIGHT.paper,
            },
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "color": theme.LIGHT.text,
            "thickness": 1.2,
            "width": 3,
        },
    }


def _names(bars: list[Ranked]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "text",
        "x": [0] * len(bars),
        "y": [place - 0.42 for place in range(len(bars))],
        "text": [literal(draw.shorten(_named(bar), LETTERS)) for bar in bars],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": theme.LIGHT.text},
        "hoverinfo": "skip",
        "cliponaxis": False,
        "showlegend": False,
    }


def _named(bar: Ranked) -> str:
    return f"▨ lossy: {bar.name}" if bar.lossy else bar.name


def _values(bars: list[Ranked], info: RankedBars) -> dict[str, Any]:
    """The number of each bar, behind the end of its interval."""
    ends = [max(parts.finite(b.value) or 0.0, parts.finite(b.high) or 0.0) for b in bars]
    return {
        "type": "scatter",
        "mode": "text",
        "x": ends,
        "y": list(range(len(bars))),
        "text": [f" {_said(bar, info)}" for bar in bars],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": theme.LIGHT.muted},
        "hoverinfo": "skip",
        "cliponaxis": False,
        "showlegend": False,
    }


def _said(bar: Ranked, info: RankedBars) -> str:
    said = parts.number(parts.finite(bar.value))
    return said if bar.low is None else f"{WORDS[verdict(bar, info.baseline)]} {said}"


def _baseline(info: RankedBars) -> dict[str, Any]:
    line = {"color": theme.LIGHT.text, "width": 1, "dash": "2px,3px"}
    at = info.baseline
    span = {"x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", **span, "line": line, "layer": "below"}


# ---- static twin ---------------------------------------------------------------------------------


def svg(info: RankedBars, width: float = 480.0) -> str:
    """The static twin."""
    bars = ranked(info)[:SHOWN]
    body, top = parts.heads(info.title, _note(info))
    if not bars:
        body.append(draw.text(18, top + 8, "nothing measured yet", "muted"))
        return draw.document(width, top + 24, body, info.title)
    end = _end(bars, info)

    def at(value: float) -> float:
        return 18 + (width - 36) * min(1.0, max(0.0, value / end))

    for place, bar in enumerate(bars):
        y, value = top + place * ROW_PX, parts.finite(bar.value)
        letters = max(8, int((width - 36) / 6.6))
        body.append(draw.text(18, y + 9, draw.shorten(_named(bar), letters), font_size=11))
        if value is None:
            continue
        role = {"above": "accent", "below": "corrected", "open": "neutral"}
        body.append(draw.rect(18, y + 14, at(value) - 18, 10, role[verdict(bar, info.baseline)]))
        low, high = parts.finite(bar.low), parts.finite(bar.high)
        if low is not None and high is not None:
            body.append(draw.line(at(low), y + 19, at(high), y + 19, "text", 1.2))
        tip = at(max(value, high or 0.0)) + 5
        body.append(draw.text(tip, y + 23, _said(bar, info), "muted", font_size=11))
    foot, line = top + len(bars) * ROW_PX, at(info.baseline)
    body.append(draw.line(line, top, line, foot, "text", stroke_dasharray="2 3"))
    unit = f"{info.unit} · dotted line at {parts.number(info.baseline)}"
    body.append(draw.text(18, foot + 14, unit, "muted", font_size=11))
    return draw.document(width, foot + 24, body, info.title)
