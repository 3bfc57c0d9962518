"""How many drafted tokens a round keeps: the histogram behind the mean."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import note
from widgets.figures.place import Place, round_at
from workbench.core.trace import Trace

TITLE = "Accepted per round"


class LengthInfo(NamedTuple):
    """``counts[k]`` rounds kept k drafted tokens; ``chosen`` is the selected round's k or -1."""

    counts: tuple[int, ...]
    rounds: int
    mean: float
    chosen: int


def info(trace: Trace, at: Place | None = None) -> LengthInfo:
    """Counts of ``Round.accepted`` from 0 to the deepest level that was ever drafted."""
    kept = [round_.accepted for round_ in trace.rounds]
    deepest = max((max(r.depth, default=0) for r in trace.rounds), default=0)
    counts = tuple(kept.count(k) for k in range(deepest + 1)) if kept else ()
    _, round_ = (-1, None) if at is None else round_at(trace, at)
    chosen = -1 if round_ is None else round_.accepted
    return LengthInfo(counts, len(kept), sum(kept) / len(kept) if kept else 0.0, chosen)


def rows(lengths: LengthInfo) -> list[dict[str, Any]]:
    """One row per length."""
    return [{"accepted": k, "rounds": count} for k, count in enumerate(lengths.counts)]


def title(lengths: LengthInfo) -> str:
    """The heading with the mean in it."""
    return f"{TITLE} · mean {lengths.mean:.2f}" if lengths.rounds else TITLE


def figure(lengths: LengthInfo, mode: str = "light") -> dict[str, Any]:
    """Bars of rounds over accepted length, the selected round's bar framed."""
    light = theme.LIGHT
    bars = {
        "type": "bar",
        "x": list(range(len(lengths.counts))),
        "y": list(lengths.counts),
        "text": [str(count) if count else "" for count in lengths.counts],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 10, "color": light.muted},
        "hovertemplate": "%{y} rounds kept %{x} drafted tokens<extra></extra>",
        "marker": {
            "color": light.accent,
            "line": {
                "color": light.select,
                "width": [2.5 * (k == lengths.chosen) for k in range(len(lengths.counts))],
            },
        },
    }
    most = max(lengths.counts, default=1) or 1
    layout = theme.base_layout(
        "accepted_length",
        title(lengths),
        xaxis={"dtick": 1 if len(lengths.counts) <= 10 else 2},
        yaxis={"visible": False, "range": [0, most * 1.22]},
        margin={"l": 18, "r": 18, "t": 34, "b": 26},
    )
    if not lengths.rounds:
        layout["annotations"] = [note("no round yet")]
        layout["xaxis"]["visible"] = False
    picture = {"data": [bars] if lengths.rounds else [], "layout": layout}
    return theme.in_mode({**picture, "config": theme.config("accepted_length")}, mode)


def svg(lengths: LengthInfo, width: float = 240.0) -> str:
    """The static twin."""
    body, top, high = [draw.heading(title(lengths))], 44.0, 70.0
    count = max(len(lengths.counts), 1)
    step = (width - 36) / count
    most = max(lengths.counts, default=1) or 1
    for k, rounds in enumerate(lengths.counts):
        tall = high * rounds / most
        x, bar = 18 + k * step, min(step * 0.7, 34)
        middle = x + step / 2
        frame = {"stroke_width": 2.5} if k == lengths.chosen else {}
        body.append(
            draw.rect(
                middle - bar / 2, top + high - tall, bar, tall, "accent",
                "select" if frame else None, rx=2, **frame,
            )
        )  # fmt: skip
        if rounds:
            at = top + high - tall - 4
            body.append(
                draw.text(middle, at, str(rounds), "muted", text_anchor="middle", font_size=10)
            )
        body.append(
            draw.text(middle, top + high + 15, str(k), "muted", text_anchor="middle", font_size=11)
        )
    if not lengths.rounds:
        body.append(draw.text(18, top + 12, "no round yet", "muted"))
    return draw.document(width, top + high + 26, body, title(lengths))
