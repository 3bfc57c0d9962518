"""Where the milliseconds of a round go: draft, verify, commit, other."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import caption as under
from widgets.figures.place import Place
from workbench.core.trace import Trace

TITLE = "Time of a round"
PARTS = {  # part -> palette role, hatch, so that greyscale tells them apart too
    "draft": ("corrected", "/"),
    "verify": ("accent", ""),
    "commit": ("accent_soft", "x"),
    "other": ("neutral", "."),
}


class SplitInfo(NamedTuple):
    """Mean milliseconds a round by part, in the order of :data:`PARTS`.

    What the copies between two devices took and moved a round is inside the parts, not one of them.
    """

    ms: dict[str, float]
    total_ms: float
    rounds: int
    transfer_ms: float = 0.0
    transfer_bytes: float = 0.0


def info(trace: Trace, at: Place | None = None) -> SplitInfo:
    """Means over all rounds; the prompt's prefill is not in them."""
    rounds = len(trace.rounds)
    ms = {
        part: sum(getattr(r.ms, part) for r in trace.rounds) / rounds if rounds else 0.0
        for part in PARTS
    }
    moved = trace.transfer
    mean = (moved.ms / rounds, moved.bytes / rounds) if moved else (0.0, 0.0)
    return SplitInfo(ms, sum(ms.values()), rounds, *mean)


def rows(split: SplitInfo) -> list[dict[str, Any]]:
    """One row per part."""
    return [
        {"part": part, "ms": ms, "share": ms / split.total_ms if split.total_ms else 0.0}
        for part, ms in split.ms.items()
    ]


def caption(split: SplitInfo) -> str:
    """``draft 16 % · verify 76 % · commit 3 % · other 5 %``; a number stays with its sign."""
    return " · ".join(
        f"{row['part']} {theme.percent(row['share'])}".replace(" ", "\u00a0") for row in rows(split)
    )


def crossing(split: SplitInfo) -> str:
    """``between devices 0.31 ms, 24.6 kB a round``; empty where nothing crossed."""
    if not split.transfer_bytes:
        return ""
    took, moved = theme.milliseconds(split.transfer_ms), theme.size(split.transfer_bytes)
    return f"of it between devices {took}, {moved} a round"


def title(split: SplitInfo) -> str:
    """The heading with the total in it."""
    return f"{TITLE} · {theme.milliseconds(split.total_ms)}" if split.rounds else TITLE


def figure(split: SplitInfo, mode: str = "light") -> dict[str, Any]:
    """One stacked bar, its parts named under it."""
    light = theme.LIGHT
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": row["part"],
            "x": [row["ms"]],
            "y": [""],
            "width": 0.36,
            "hovertemplate": f"{row['part']} {theme.milliseconds(row['ms'])}"
            f" · {theme.percent(row['share'])}<extra></extra>",
            "marker": {
                "color": getattr(light, PARTS[row["part"]][0]),
                "line": {"color": light.paper, "width": 1},
                "pattern": {
                    "shape": PARTS[row["part"]][1],
                    "fillmode": "overlay",
                    "size": 5,
                    "solidity": 0.12,
                    "fgcolor": light.paper,
                },
            },
        }
        for row in rows(split)
    ]
    words = caption(split).replace(" · commit", "<br>commit") if split.rounds else "no round yet"
    moved = crossing(split)
    words += f"<br>{moved}" if moved else ""
    layout = theme.base_layout(
        "time_split",
        title(split),
        barmode="stack",
        xaxis={"visible": False, "range": [0, split.total_ms or 1]},
        yaxis={"visible": False},
        annotations=[under(words, 18)],
        margin={"l": 18, "r": 18, "t": 34, "b": 64 if moved else 48},
    )
    picture = {"data": data if split.rounds else [], "layout": layout}
    return theme.in_mode({**picture, "config": theme.config("time_split")}, mode)


def svg(split: SplitInfo, width: float = 300.0) -> str:
    """The static twin."""
    body, x = [draw.heading(title(split))], 18.0
    for row in rows(split):
        wide = (width - 36) * row["share"]
        body.append(draw.rect(x, 34, wide - 2, 14, PARTS[row["part"]][0], rx=2))
        x += wide
    words = caption(split) if split.rounds else "no round yet"
    body.append(draw.text(18, 68, words, "muted", font_size=11.5))
    moved = crossing(split)
    if moved:
        body.append(draw.text(18, 84, moved, "muted", font_size=11.5))
    return draw.document(width, 98 if moved else 82, body, title(split))
