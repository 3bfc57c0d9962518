"""The four dials as HTML: what the model measures now, and how far that is from before."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

from widgets import theme

CSS = """
.dw-dial-row { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: flex-start; }
.dw-dial { min-width: 104px; flex: 1 1 104px; white-space: nowrap; }
.dw-dial abbr { text-decoration: none; cursor: help; }
.dw-dial .dw-big { font-size: 24px; line-height: 1.25; }
.dw-dial .dw-unit { font-size: 11.5px; line-height: 1.4; color: var(--dw-muted); }
.dw-small.dw-gain { color: var(--dw-accepted); } .dw-small.dw-loss { color: var(--dw-corrected); }
"""

ON_TORCH = (
    "Speed: changed modules run outside the compiled pass; part of the difference is that, and not"
    " the change itself."
)
SPEED_NOISE = 0.15  # two short runs on a busy machine differ by this much for no reason


class Dial(NamedTuple):
    """One number, what it was before, and which way is good (+1 up, -1 down)."""

    title: str
    value: float | None
    before: float | None
    unit: str
    good: int
    help: str


def dials_of(now: Any, before: Any | None) -> list[Dial]:
    """The dials of ``workbench.engine.dials.Dials`` (or None while nothing is measured)."""

    def pair(name: str) -> tuple[float | None, float | None]:
        return getattr(now, name, None), getattr(before, name, None)

    return [
        Dial(
            "held-out loss",
            *pair("loss_nats"),
            "nats a token",
            -1,
            "mean cross-entropy of the next token on held-out text, natural logarithm",
        ),
        Dial(
            "acceptance",
            *pair("acceptance_ratio"),
            "of draft tokens",
            1,
            "expected acceptance of one draft token: mean over held-out places of"
            " sum over v of min(p, q), at the lab's temperature",
        ),
        Dial(
            "speed",
            *pair("tokens_per_s"),
            "tokens/s",
            1,
            "emitted tokens / time of all rounds of short runs; the prompt is not counted",
        ),
        Dial(
            "weights",
            *pair("weight_bytes"),
            "in memory",
            -1,
            "bytes of all parameters and buffers in memory, shared ones once",
        ),
    ]


def _number(dial: Dial, value: float | None) -> str:
    if value is None:
        return "–"
    if dial.title == "weights":
        return theme.size(int(value))
    return {"held-out loss": f"{value:.3f}", "acceptance": f"{value:.3f}"}.get(
        dial.title, theme.rate(value)
    )


def _change(dial: Dial, measured: bool) -> str:
    if dial.value is None:
        why = "no draft model" if dial.title == "acceptance" else "no runs"
        return f'<span class="dw-small">{why if measured else "not measured yet"}</span>'
    if dial.before is None:
        return ""
    gap = dial.value - dial.before
    if dial.title in ("speed", "weights"):
        ratio = dial.value / dial.before if dial.before else 1.0
        gap, text = ratio - 1, theme.times(ratio)
        flat = abs(gap) < (SPEED_NOISE if dial.title == "speed" else 5e-4)
    else:
        text, flat = f"{gap:+.3f}", abs(gap) < 5e-4
    if flat:
        return '<span class="dw-small">as before</span>'
    good = gap * dial.good > 0
    sign = "better" if good else "worse"
    return (
        f'<span class="dw-small {"dw-gain" if good else "dw-loss"}">'
        f"{'▲' if gap > 0 else '▼'} {escape(text)} · {sign}</span>"
    )


def dials_html(now: Any, before: Any | None, note: str = "") -> str:
    """Four dials in a row.

    Args:
        now, before: measured dials, or None.
        note: one sentence below them.
    """
    cells = "".join(
        f'<div class="dw-dial"><div class="dw-title"><abbr title="{escape(dial.help, True)}">'
        f"{dial.title}</abbr></div>"
        f'<div class="dw-big">{_number(dial, dial.value)}</div>'
        f'<div class="dw-unit">{dial.unit}</div>{_change(dial, now is not None)}</div>'
        for dial in dials_of(now, before)
    )
    if getattr(before, "compiled", False) and not getattr(now, "compiled", True):
        note = " ".join(filter(None, (note, ON_TORCH)))
    below = f'<p class="dw-small" style="margin:6px 0 0">{escape(note)}</p>' if note else ""
    return f'<div class="dw-dial-row" data-dials="1">{cells}</div>{below}'
