"""A search as it went: each trial's value, the best so far, and what was pruned on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import chart_parts as parts
from widgets.figures import svg as draw
from widgets.figures.notes import literal, note

NAME = "search_history"


class Trial(NamedTuple):
    """One trial; ``value`` is None where it was pruned or failed (``state`` says which)."""

    number: int
    value: float | None
    group: str
    state: str = "complete"
    label: str = ""


class SearchHistory(NamedTuple):
    """Trials in the order in which they were made.

    Args:
        unit: of the values, for the axis.
        baseline: a dotted line; None = none.
    """

    title: str
    unit: str
    trials: tuple[Trial, ...]
    baseline: float | None = 1.0
    note: str = ""


def best_so_far(info: SearchHistory) -> list[float | None]:
    """The greatest value up to each trial."""
    found: list[float | None] = []
    best: float | None = None
    for trial in info.trials:
        value = parts.finite(trial.value)
        best = value if best is None else best if value is None else max(best, value)
        found.append(best)
    return found


def rows(info: SearchHistory) -> list[dict[str, Any]]:
    """One row per trial."""
    best = best_so_far(info)
    return [{**t._asdict(), "best": b} for t, b in zip(info.trials, best, strict=True)]


def figure(info: SearchHistory, mode: str = "light") -> dict[str, Any]:
    """Markers by group, the best as a stair; ``customdata`` = index of the trial."""
    groups = list(dict.fromkeys(trial.group for trial in info.trials))
    left = [n for n, t in enumerate(info.trials) if parts.finite(t.value) is None]
    names = ["best so far", *groups, *(["pruned or failed"] if left else [])]
    made = parts.layout(
        NAME,
        info.title,
        info.note,
        names if info.trials else (),
        xaxis={"title": {"text": "trial"}, "nticks": 7},
        yaxis={"title": {"text": literal(info.unit)}, "nticks": 5},
        shapes=_baseline(info) if info.trials else [],
        margin={"l": 58, "b": 40},
    )
    made["yaxis"] |= {"showgrid": True, "gridcolor": theme.LIGHT.rule}
    if not info.trials:
        made["annotations"] = [note("no trial yet")]
        made["xaxis"]["visible"] = made["yaxis"]["visible"] = False
        return parts.picture(NAME, [], made, mode)
    data = [_stair(info), *(_group(info, n, name) for n, name in enumerate(groups))]
    return parts.picture(NAME, [*data, _left_out(info, left)] if left else data, made, mode)


def _stair(info: SearchHistory) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [t.number + 1 for t in info.trials],
        "y": best_so_far(info),
        "line": {"color": theme.LIGHT.text, "width": 1.6, "shape": "hv"},
        "hovertemplate": "best %{y:.3g}<extra></extra>",
    }


def _group(info: SearchHistory, number: int, name: str) -> dict[str, Any]:
    look = parts.look(number)
    mine = [(n, t) for n, t in enumerate(info.trials) if t.group == name]
    mine = [(n, t) for n, t in mine if parts.finite(t.value) is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(name),
        "x": [t.number + 1 for _, t in mine],
        "y": [parts.finite(t.value) for _, t in mine],
        "customdata": [n for n, _ in mine],
        "hovertext": [literal(t.label or t.group) for _, t in mine],
        "hovertemplate": f"trial %{{x}}: %{{y:.3g}} {literal(info.unit)}<br>%{{hovertext}}"
        "<extra></extra>",
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "cliponaxis": False,
    }


def _left_out(info: SearchHistory, left: list[int]) -> dict[str, Any]:
    """Crosses along the foot: something was tried there."""
    values = [v for t in info.trials if (v := parts.finite(t.value)) is not None]
    foot = min([*values, *([info.baseline] if info.baseline is not None else [])], default=0.0)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "pruned or failed",
        "x": [info.trials[n].number + 1 for n in left],
        "y": [foot] * len(left),
        "customdata": left,
        "hovertext": [literal(f"{info.trials[n].state}: {info.trials[n].label}") for n in left],
        "hovertemplate": "trial %{x} %{hovertext}<extra></extra>",
        "marker": {"color": theme.LIGHT.muted, "symbol": "x-thin-open", "size": 8},
        "cliponaxis": False,
    }


def _baseline(info: SearchHistory) -> list[dict[str, Any]]:
    if info.baseline is None:
        return []
    line = {"color": theme.LIGHT.text, "width": 1, "dash": "2px,3px"}
    y = info.baseline
    return [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}]


def svg(info: SearchHistory, width: float = 480.0) -> str:
    """The static twin: values as dots, the best as a stair."""
    body, top = parts.heads(info.title, info.note)
    values = [v for t in info.trials if (v := parts.finite(t.value)) is not None]
    if not values:
        said = "no trial yet" if not info.trials else "no trial came to its end yet"
        body.append(draw.text(18, top + 8, said, "muted"))
        return draw.document(width, top + 24, body, info.title)
    low, high = min([*values, info.baseline or values[0]]), max(values)
    tall, last = 140.0, max(1, len(info.trials) - 1)

    def at(place: int, value: float) -> tuple[float, float]:
        up = (value - low) / (high - low) if high > low else 0.5
        return 24 + (width - 48) * place / last, top + 8 + (1 - up) * tall

    pen = "M"
    stair = ""
    for place, best in enumerate(best_so_far(info)):
        if best is not None:
            x, y = at(place, best)
            stair, pen = (
                stair + (f"M{x:.1f},{y:.1f} " if pen == "M" else f"H{x:.1f} V{y:.1f} "),
                "L",
            )
    body.append(draw.path(stair.strip(), "text", 1.6))
    for place, trial in enumerate(info.trials):
        value = parts.finite(trial.value)
        x, y = at(place, low if value is None else value)
        role = "muted" if value is None else "accent"
        body.append(draw.rect(x - 3, y - 3, 6, 6, role, rx=None if value is None else 3.0))
    foot = top + tall + 26
    said = f"{len(info.trials)} trials · {info.unit}, {parts.number(low)} to {parts.number(high)}"
    body.append(draw.text(18, foot, f"{said} · ■ pruned or failed", "muted", font_size=11))
    return draw.document(width, foot + 10, body, info.title)
