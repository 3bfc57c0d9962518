"""Quiet lines of text in plotly figures: what an empty one says, what stands under the bars."""

from __future__ import annotations

from typing import Any

from widgets import theme


def literal(text: str) -> str:
    """Text that plotly shows as it is, not as its own little markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def note(words: str) -> dict[str, Any]:
    """A line in the middle of an empty figure."""
    return {
        "text": words,
        "showarrow": False,
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
        "font": {"size": 12, "color": theme.LIGHT.muted},
    }


def caption(words: str, left: int) -> dict[str, Any]:
    """A line under the plot that starts where the title does; ``left`` is the left margin."""
    at = {"x": 0, "xanchor": "left", "xshift": 18 - left, "y": 0, "yanchor": "top", "yshift": -2}
    return {**note(words), **at, "align": "left"}
