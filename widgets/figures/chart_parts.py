"""What the charts of the labs share: headings that wrap, keys under the axis, ticks with room.

*Idea*: a figure does not know how wide it will stand, so everything is laid out for the narrowest
place (340 px). A host that knows better has heading and keys laid out anew by :func:`fitted`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import literal

NARROWEST_PX = 340  # that a chart has to be legible at
LETTERS = 46  # of a heading that fit this in the widest system font
LETTER_PX = 6.6
LINE_PX = 15.0
AROUND_PX = 90  # of a chart's width: the axis and the right margin
NARROW_PX = NARROWEST_PX - AROUND_PX
KEY_PX, KEYS_PX = 19, 4  # a row of keys, and the air above them
SHIFT_PX = 8  # plotly sets a title of several lines this much higher than one of a single line

# Okabe and Ito's colours, black made grey to be seen on dark paper. An expert keeps its colour in
# both modes, so each is one step off the theme's own value, which would be swapped.
CYCLE = (
    "#0072b3", "#e69f00", "#019e73", "#cc79a7", "#56b4e8", "#d55e01", "#f0e442", "#5d6772",
)  # fmt: skip


class Look(NamedTuple):
    """A line's colour, dash (plotly's words) and marker: any one of them tells it from others."""

    colour: str
    dash: str
    symbol: str


LOOKS = (
    Look(theme.LIGHT.accent, "solid", "circle"),
    Look(theme.LIGHT.corrected, "6px,3px", "square"),
    Look(theme.LIGHT.accepted, "2px,3px", "diamond"),
    Look(theme.LIGHT.text, "9px,3px,2px,3px", "triangle-up"),
    Look("#b5689a", "4px,2px", "cross"),
    Look(theme.LIGHT.muted, "1px,3px", "triangle-down"),
)


def look(index: int) -> Look:
    """Of the line at ``index``; after the last look the dashes go on with other colours."""
    turn, place = divmod(index, len(LOOKS))
    return LOOKS[place]._replace(dash=LOOKS[(place + turn) % len(LOOKS)].dash)


def finite(value: float | None) -> float | None:
    """The number, or None for one that cannot be drawn."""
    return None if value is None or not math.isfinite(value) else float(value)


def wrapped(words: str, letters: int = LETTERS) -> list[str]:
    """At most two lines; what is longer ends in an ellipsis."""
    return textwrap.wrap(words, letters, max_lines=2, placeholder=" …") if words.strip() else []


def headline(title: str, note: str = "", width_px: float = NARROWEST_PX) -> dict[str, Any]:
    """Text and pad of a title, and the top margin in pixels that it needs."""
    letters = LETTERS + int((width_px - NARROWEST_PX) / LETTER_PX)
    bold, plain = wrapped(title, letters), wrapped(note, letters + 2)
    text = "<br>".join(
        [*(f"<b>{literal(line)}</b>" for line in bold), *(literal(line) for line in plain)]
    )
    lines = max(1, len(bold) + len(plain))
    pad = {"l": 18, "t": 12 + SHIFT_PX * (lines > 1)}
    return {"text": text, "pad": pad, "top": 23 + LINE_PX * lines}


def layout(
    name: str,
    title: str,
    note: str = "",
    keys: Sequence[str] = (),
    beside: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """The theme's base layout under a heading of up to four lines; ``margin`` may leave out t.

    Args:
        keys: names that a legend at the foot shows; it gets room below ``margin``'s b.
        beside: labels of the whole numbers on the x axis.
    """
    margin = {"l": 52, "r": 18, "b": 34, **more.pop("margin", {}), "t": 0}
    if keys:
        more |= {"showlegend": True, "legend": legend()}
        margin["b"] += KEYS_PX
    made = theme.base_layout(name, "", margin=margin, **more)
    made["meta"] |= {"heading": [title, note], "keys": list(keys), "foot_px": margin["b"]}
    made["meta"] |= {"beside": list(beside)}
    return made | _fit(made, NARROWEST_PX)


def fitted(figure: dict[str, Any], width_px: float) -> dict[str, Any]:
    """The same figure with heading and keys laid out for a place so wide.

    Figures that are not laid out by :func:`layout` come back as they are.
    """
    made = figure.get("layout", {})
    if "heading" not in made.get("meta", {}):
        return figure
    return {**figure, "layout": made | _fit(made, max(width_px, NARROWEST_PX))}


def _fit(made: dict[str, Any], width_px: float) -> dict[str, Any]:
    """What of a layout depends on its width."""
    meta = made["meta"]
    head = headline(*meta["heading"], width_px=width_px)
    rows = key_rows(meta["keys"], width_px - AROUND_PX) if meta["keys"] else 0
    margin = made["margin"] | {"t": head["top"], "b": meta["foot_px"] + KEY_PX * rows}
    fit = {"title": made["title"] | {"text": head["text"], "pad": head["pad"]}, "margin": margin}
    if meta["beside"]:
        ticks = side_by_side(tuple(meta["beside"]), width_px - margin["l"] - margin["r"])
        fit["xaxis"] = made.get("xaxis", {}) | ticks
    return fit


def picture(name: str, data: list[dict[str, Any]], made: dict[str, Any], mode: str) -> dict:
    """A whole plotly dict in the colours of ``mode``."""
    return theme.in_mode({"data": data, "layout": made, "config": theme.config(name)}, mode)


def key_rows(names: Sequence[str], room_px: float = NARROW_PX) -> int:
    """Rows that a horizontal legend of these names needs in so much room."""
    wide = [46 + LETTER_PX * len(name) for name in names]
    if not wide or sum(wide) <= room_px:
        return 1
    columns = max(1, int(room_px / max(wide)))  # plotly makes all columns as wide as the widest
    return math.ceil(len(wide) / columns)


def legend() -> dict[str, Any]:
    """Names in rows at the foot of the figure."""
    return {
        "orientation": "h",
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 0.01,
        "yref": "container",
        "yanchor": "bottom",
        "font": {"size": 11, "color": theme.LIGHT.text},
        "bgcolor": "rgba(0,0,0,0)",
        "itemwidth": 34,
        "tracegroupgap": 0,
    }


def thinned(labels: tuple[str, ...], most: int, letters: int = 12) -> dict[str, Any]:
    """Ticks at whole numbers: every label, or every n-th where more than ``most`` would crowd."""
    step = max(1, math.ceil(len(labels) / max(1, most)))
    shown = range(0, len(labels), step)
    return {
        "tickangle": 0,
        "tickvals": list(shown),
        "ticktext": [literal(draw.shorten(labels[i], letters)) for i in shown],
    }


def side_by_side(labels: tuple[str, ...], room_px: float = NARROW_PX) -> dict[str, Any]:
    """The same for labels that stand beside each other on a horizontal axis of this length."""
    longest = max(map(len, labels), default=1)
    for letters in (16, 8):  # longer names whole only where all of them are shown
        most = int(room_px / (8 + 7 * min(letters, longest)))
        if most >= len(labels):
            break
    return thinned(labels, most, letters)


def number(value: float | None) -> str:
    """Three significant digits, thousands as k, a dash where unknown."""
    if value is None:
        return "–"
    if abs(value) >= 1e4:
        return f"{value / 1000:.3g} k" if abs(value) < 1e7 else f"{value / 1e6:.3g} M"
    return f"{value:.3g}"


def heads(title: str, note: str) -> tuple[list[str], float]:
    """The heading of a static twin, and the y at which the plot may begin."""
    body, y = [], 22.0
    for line in wrapped(title, 76):
        body.append(draw.heading(line, y=y))
        y += LINE_PX
    for line in wrapped(note, 80):
        body.append(draw.text(18, y, line, "muted", font_size=11))
        y += LINE_PX
    return body, y


def ink(colour: str) -> str:
    """Dark or white text, whichever reads better on a colour of :data:`CYCLE`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return theme.LIGHT.text if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else theme.LIGHT.paper


def sheer(colour: str, opacity: float) -> str:
    """The colour seen through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
