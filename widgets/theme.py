"""One look for every picture: colours, fates, the plotly template, and how numbers are written.

*Idea*: pictures are built in the light palette, role by role; :func:`in_mode` swaps each light
value for its dark twin, in Python and (through :func:`swap_table`) in the browser alike, so a view
can follow its host without asking Python. Colours are Okabe and Ito's, safe for colour-blind eyes,
and never the only code: each fate also has an underline, a dash and a spoken name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Roboto, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', Consolas, monospace"


@dataclass(frozen=True)
class Palette:
    """The roles that colours play; ``accent`` is the only one that asks for attention."""

    paper: str
    surface: str
    text: str
    muted: str
    rule: str
    edge: str
    accent: str
    accent_soft: str
    select: str
    accepted: str
    accepted_fill: str
    bonus: str
    bonus_fill: str
    corrected: str
    corrected_fill: str
    neutral: str
    tip: str
    tip_text: str


LIGHT = Palette(
    paper="#ffffff",
    surface="#f5f7f9",
    text="#1b2430",
    muted="#66717f",
    rule="#e3e7ec",
    edge="#d0d5dc",
    accent="#0072b2",
    accent_soft="#8abfdf",
    select="#f0c000",
    accepted="#009e73",
    accepted_fill="#e3f4ee",
    bonus="#0173b2",
    bonus_fill="#e2eff8",
    corrected="#d55e00",
    corrected_fill="#fbe9de",
    neutral="#b1bac5",
    tip="#1c2531",
    tip_text="#fefefe",
)
DARK = Palette(
    paper="#14181d",
    surface="#1b2128",
    text="#e4e9ee",
    muted="#8f9baa",
    rule="#2a313a",
    edge="#3c434d",
    accent="#56b4e9",
    accent_soft="#2b6187",
    select="#f0c001",
    accepted="#2fc49a",
    accepted_fill="#173a30",
    bonus="#57b4e9",
    bonus_fill="#17344a",
    corrected="#e8874a",
    corrected_fill="#44291a",
    neutral="#56606c",
    tip="#2d353f",
    tip_text="#f4f6f8",
)
PALETTES = {"light": LIGHT, "dark": DARK}


class FateStyle(NamedTuple):
    """How a fate is told: in words, by colour role, by line style and by dash of an edge."""

    name: str
    meaning: str
    line: str  # palette role
    fill: str  # palette role
    underline: str  # CSS text-decoration-style
    dash: str  # SVG stroke-dasharray


FATES = {
    "accepted": FateStyle(
        "accepted", "drafted and kept", "accepted", "accepted_fill", "solid", "none"
    ),
    "bonus": FateStyle(
        "bonus", "free token after a fully kept draft", "bonus", "bonus_fill", "dotted", "1.5 3"
    ),
    "corrected": FateStyle(
        "corrected",
        "the target's token where the draft was refused",
        "corrected",
        "corrected_fill",
        "wavy",
        "5 3",
    ),
    "rejected": FateStyle(
        "rejected", "drafted, tested, refused", "corrected", "corrected_fill", "wavy", "5 3"
    ),
    "untested": FateStyle("untested", "drafted, never looked at", "edge", "paper", "none", "2 3"),
}


def palette(mode: str) -> Palette:
    """The colours of ``"light"`` or ``"dark"``."""
    if mode not in PALETTES:
        raise ValueError(f"mode={mode!r}: choose 'light' or 'dark'")
    return PALETTES[mode]


def swap_table() -> dict[str, str]:
    """Light value -> dark value, one entry a role; what a browser needs to darken a figure."""
    light, dark = asdict(LIGHT), asdict(DARK)
    return {light[role]: dark[role] for role in light}


def in_mode(figure: Any, mode: str) -> Any:
    """The same nested lists and dicts with every light colour in its ``mode`` twin."""
    palette(mode)
    return figure if mode == "light" else _swap(figure, swap_table())


def _swap(value: Any, table: dict[str, str]) -> Any:
    if isinstance(value, str):
        return table.get(value, value)
    if isinstance(value, dict):
        return {key: _swap(item, table) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_swap(item, table) for item in value]
    return value


def template(mode: str = "light") -> dict[str, Any]:
    """The plotly template: nothing but data ink, small type, thin rules."""
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "tickfont": {"size": 11, "color": LIGHT.muted},
        "title": {"font": {"size": 11, "color": LIGHT.muted}, "standoff": 6},
        "automargin": False,
        "fixedrange": True,
    }
    layout = {
        "font": {"family": SANS, "size": 12, "color": LIGHT.text},
        "colorway": [LIGHT.accent, LIGHT.corrected, LIGHT.accepted, LIGHT.neutral],
        "paper_bgcolor": LIGHT.paper,
        "plot_bgcolor": LIGHT.paper,
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": LIGHT.tip,
            "bordercolor": LIGHT.tip,
            "font": {"family": SANS, "size": 12, "color": LIGHT.tip_text},
            "align": "left",
        },
    }
    return in_mode({"layout": layout, "data": {}}, mode)


def base_layout(name: str, title: str, **more: Any) -> dict[str, Any]:
    """The layout every figure starts from; ``name`` comes back with its clicks."""
    layout = {
        "template": template(),
        "title": {
            "text": f"<b>{title}</b>",
            "font": {"family": SANS, "size": 11, "color": LIGHT.muted},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"l": 18, "t": 12},
        },
        "margin": {"l": 18, "r": 18, "t": 38, "b": 14},
        "autosize": True,
        "showlegend": False,
        "dragmode": False,
        "bargap": 0.3,
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": LIGHT.edge, "activecolor": LIGHT.accent},
        "meta": {"figure": name},
    }
    return {**layout, **more}


CONFIG = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "responsive": True,
    "showSendToCloud": False,
    "modeBarButtons": [["toImage"]],
}


def config(name: str) -> dict[str, Any]:
    """Plotly's config: no logo, no sharing, one button that saves a picture named ``name``."""
    save = {"format": "png", "scale": 3, "filename": name}
    return {**CONFIG, "toImageButtonOptions": save}


def variables(mode: str) -> str:
    """The palette as CSS declarations: ``--dw-accent: #0072b2; ...``."""
    colours = palette(mode)
    return " ".join(
        f"--dw-{field.name.replace('_', '-')}: {getattr(colours, field.name)};"
        for field in fields(Palette)
    )


def css() -> str:
    """Custom properties for ``.dw`` roots; ``data-mode`` (set by the view) beats the system."""
    return f"""\
.dw {{ {variables("light")} color-scheme: light; }}
@media (prefers-color-scheme: dark) {{ .dw {{ {variables("dark")} color-scheme: dark; }} }}
[data-jp-theme-light="true"] .dw, .dw.dw[data-mode="light"] \
{{ {variables("light")} color-scheme: light; }}
[data-jp-theme-light="false"] .dw, .dw.dw[data-mode="dark"] \
{{ {variables("dark")} color-scheme: dark; }}
.dw {{ background: var(--dw-paper); color: var(--dw-text); font-family: {SANS};
  font-size: 13px; line-height: 1.45; font-variant-numeric: tabular-nums; }}"""


def visible(piece: str) -> str:
    """A token's text with its blanks made visible: ⏎ new line, ⇥ tab, · space, ∅ nothing."""
    shown = piece.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")
    return shown or "∅"


def chance(value: float | None) -> str:
    """A probability: ``0.81``, ``<0.01`` where rounding would hide it, ``–`` where unknown."""
    if value is None:
        return "–"
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def bits(value: float) -> str:
    """An entropy: ``2.31 bits``, 0 where one outcome is certain."""
    return f"{value:.2f} bits" if value >= 0.005 else "0 bits"


def milliseconds(value: float) -> str:
    """``0.42 ms``, ``18.3 ms``, ``1.24 s``."""
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def times(value: float | None) -> str:
    """A ratio: ``1.62×``."""
    return "–" if value is None else f"{value:.2f}×"


def rate(value: float) -> str:
    """Tokens per second without false digits: ``142``, ``9.8``."""
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"


def percent(value: float) -> str:
    """A share: ``16 %``, ``<1 %``."""
    return "<1 %" if 0 < value < 0.005 else f"{value * 100:.0f} %"


def size(count_bytes: float) -> str:
    """``812 B``, ``41.3 kB``, ``20.8 MB``, ``14.0 GB`` (powers of ten)."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count_bytes) >= power:
            return f"{count_bytes / power:.1f} {unit}"
    return f"{count_bytes:.0f} B"
