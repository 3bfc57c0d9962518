"""Small SVG documents for static twins: colours by role, light or dark as the reader's page is."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from widgets import theme

CHAR = 0.605  # width of a monospace letter in em


def document(width: float, height: float, body: list[str], title: str) -> str:
    """A whole SVG: own background, own style, so that it reads alone and inside any page.

    Where a page strips ``<style>``, the light colours in the attributes remain.
    """
    inner = "".join(body)
    names = {name for group in re.findall(r'class="([^"]*)"', inner) for name in group.split()}
    roles = sorted(name[2:] for name in names if name.startswith("f-"))
    strokes = sorted(name[2:] for name in names if name.startswith("s-"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="dw-svg" role="img"'
        f' viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" style="max-width:100%"'
        f' font-family="{escape(theme.SANS)}" font-size="12">'
        f"<title>{escape(title)}</title><style>{_style(roles, strokes)}</style>"
        f"{rect(0, 0, width, height, 'paper')}{inner}</svg>"
    )


def _style(fills: list[str], strokes: list[str]) -> str:
    rules = [f".dw-svg .f-{r}{{fill:var(--dw-{r})}}" for r in {*fills, "paper"}]
    rules += [f".dw-svg .s-{r}{{stroke:var(--dw-{r})}}" for r in strokes]
    used = {*fills, *strokes, "paper"}
    light, dark = (_variables(mode, used) for mode in ("light", "dark"))
    return (
        f".dw-svg{{{light}}}@media (prefers-color-scheme:dark){{.dw-svg{{{dark}}}}}"
        f'[data-jp-theme-light="true"] .dw-svg{{{light}}}'
        f'[data-jp-theme-light="false"] .dw-svg{{{dark}}}' + "".join(sorted(rules))
    )


def _variables(mode: str, used: set[str]) -> str:
    colours = theme.palette(mode)
    return ";".join(f"--dw-{r}:{getattr(colours, r.replace('-', '_'))}" for r in sorted(used))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _paint(fill: str | None, stroke: str | None) -> str:
    """Class names for the roles (``accent``, ``bonus_fill``...), attributes as the fallback."""
    names, plain = [], ""
    for letter, role, key in (("f", fill, "fill"), ("s", stroke, "stroke")):
        if role is not None:
            names.append(f"{letter}-{role.replace('_', '-')}")
            plain += f' {key}="{getattr(theme.LIGHT, role)}"'
    if fill is None:
        plain += ' fill="none"'
    return f'class="{" ".join(names)}"{plain}'


def _more(attributes: dict[str, Any]) -> str:
    return "".join(
        f' {key.replace("_", "-")}="{_n(value) if isinstance(value, float) else value}"'
        for key, value in attributes.items()
        if value is not None
    )


def rect(
    x: float, y: float, width: float, height: float, fill: str | None, stroke=None, **more: Any
) -> str:
    """A rectangle; ``fill`` and ``stroke`` are palette roles."""
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(max(height, 0))}"'
        f" {_paint(fill, stroke)}{_more(more)}/>"
    )


def path(d: str, stroke: str, width: float, **more: Any) -> str:
    """A line along ``d``."""
    return f'<path d="{d}" {_paint(None, stroke)} stroke-width="{_n(width)}"{_more(more)}/>'


def line(x0: float, y0: float, x1: float, y1: float, stroke: str, width=1.0, **more: Any) -> str:
    """A straight line."""
    return path(f"M{_n(x0)},{_n(y0)} L{_n(x1)},{_n(y1)}", stroke, width, **more)


def text(x: float, y: float, content: str, role: str = "text", *, mono=False, **more: Any) -> str:
    """A line of text, baseline at ``y``."""
    family = f' font-family="{escape(theme.MONO)}" xml:space="preserve"' if mono else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" {_paint(role, None)}{family}{_more(more)}>'
        f"{escape(content)}</text>"
    )


def heading(content: str, x: float = 18.0, y: float = 22.0) -> str:
    """The small bold title every picture starts with."""
    return text(x, y, content, "muted", font_size=11, font_weight=700)


def shorten(label: str, letters: int) -> str:
    """At most ``letters`` characters."""
    return label if len(label) <= letters else label[: max(1, letters - 1)] + "…"


def beside(pictures: dict[str, str]) -> str:
    """Documents next to each other as HTML, each under its name; narrow pages stack them."""
    cells = "".join(
        f'<figure style="margin:0;flex:1 1 380px;min-width:0"><figcaption>{escape(name)}'
        f"</figcaption>{picture}</figure>"
        for name, picture in pictures.items()
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{cells}</div>'
