"""Does speculation pay? Tokens per second against plain decoding measured in the same session."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.notes import caption, note
from widgets.figures.place import Place
from widgets.figures.verdict import verdict_sentence
from workbench.core.trace import Trace

__all__ = ["SpeedInfo", "figure", "info", "rows", "svg", "verdict_sentence"]

TITLE = "Speed"
EXPLAIN = {
    "tokens_per_s": "generated tokens / time of all rounds; the prompt's prefill is not counted",
    "ratio": "tokens per second / those of plain decoding, same model, same prompt, same session;"
    " the interval is that of the plain measurement (90 % bootstrap)",
    "mean_emitted": "tokens that a round adds to the text: drafted tokens kept + the extra one",
    "break_even_emitted": "tokens a round must add to be as fast as plain decoding:"
    " ms of a round / ms of a plain token",
}


class SpeedInfo(NamedTuple):
    """None where plain decoding was not measured or nothing was generated."""

    tokens_per_s: float
    mean_emitted: float
    plain_tokens_per_s: float | None
    plain_low: float | None
    plain_high: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    break_even_emitted: float | None
    verdict: str


def info(trace: Trace, at: Place | None = None) -> SpeedInfo:
    """Speeds of a trace; ``break_even_emitted`` = ms of a round / ms of a plain token."""
    summary, plain = trace.summary, trace.baseline
    fast = summary["tokens_per_s"]
    if plain is None or plain.ms_per_token <= 0 or not summary["rounds"]:
        nothing = (None,) * 7
        return SpeedInfo(fast, summary["mean_emitted"], *nothing, verdict_sentence(trace))
    low, high = plain.ms_low or plain.ms_per_token, plain.ms_high or plain.ms_per_token
    return SpeedInfo(
        fast,
        summary["mean_emitted"],
        1e3 / plain.ms_per_token,
        1e3 / high,
        1e3 / low,
        fast * plain.ms_per_token / 1e3,
        fast * low / 1e3,
        fast * high / 1e3,
        summary["ms"] / summary["rounds"] / plain.ms_per_token,
        verdict_sentence(trace),
    )


def rows(speed: SpeedInfo) -> list[dict[str, Any]]:
    """One row per number, with what it means."""
    return [
        {"name": name, "value": value, "meaning": EXPLAIN.get(name, "")}
        for name, value in speed._asdict().items()
        if name != "verdict"
    ]


def break_even(speed: SpeedInfo) -> str:
    """The break-even point in words."""
    if speed.break_even_emitted is None:
        return "plain decoding not measured"
    needed, given = speed.break_even_emitted, speed.mean_emitted
    return f"pays from {needed:.2f} tokens a round, this run {given:.2f}"


def figure(speed: SpeedInfo, mode: str = "light") -> dict[str, Any]:
    """Two bars in tokens/s; the dashed line is plain speed, where speculation breaks even."""
    light, plain = theme.LIGHT, speed.plain_tokens_per_s
    bars = [_bar("this run", speed.tokens_per_s, light.accent)]
    if plain is not None:
        whisker = {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, (speed.plain_high or plain) - plain)],
            "arrayminus": [max(0.0, plain - (speed.plain_low or plain))],
            "color": light.text,
            "thickness": 1,
            "width": 3,
        }
        bars.insert(0, {**_bar("plain", plain, light.neutral), "error_x": whisker})
    most = max(speed.tokens_per_s, plain or 0.0)
    started = speed.tokens_per_s > 0
    layout = theme.base_layout(
        "speed",
        heading(speed),
        xaxis={"visible": False, "range": [0, most * 1.75 or 1]},
        yaxis={"visible": started, "ticklabelstandoff": 4},
        shapes=_line(speed),
        annotations=[
            caption(break_even(speed).replace(", this", "<br>this"), 70)
            if started
            else note("no round yet")
        ],
        margin={"l": 70, "r": 18, "t": 30, "b": 44},
    )
    picture = {"data": bars if started else [], "layout": layout}
    return theme.in_mode({**picture, "config": theme.config("speed")}, mode)


def _bar(name: str, value: float, colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "x": [value],
        "y": [name],
        "width": 0.42,
        "text": [f"  {theme.rate(value)} tokens/s"],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 11, "color": theme.LIGHT.text},
        "hovertemplate": "%{y}: %{x:.1f} tokens/s<extra></extra>",
        "marker": {"color": colour},
    }


def heading(speed: SpeedInfo) -> str:
    """The title with the ratio and its interval."""
    if speed.ratio is None:
        return TITLE
    return (
        f"{TITLE} · {theme.times(speed.ratio)} plain"
        f" ({speed.ratio_low:.2f} to {speed.ratio_high:.2f})"
    )


def _line(speed: SpeedInfo) -> list[dict[str, Any]]:
    if speed.plain_tokens_per_s is None:
        return []
    common = {"yref": "paper", "y0": 0, "y1": 1, "type": "line"}
    x = speed.plain_tokens_per_s
    return [
        {
            **common,
            "x0": x,
            "x1": x,
            "line": {"color": theme.LIGHT.text, "width": 1.2, "dash": "dash"},
        }
    ]


def svg(speed: SpeedInfo, width: float = 300.0) -> str:
    """The static twin: the ratio in large type, the two bars, the break-even line."""
    if not speed.tokens_per_s:
        body = [draw.heading(TITLE), draw.text(18, 44, "no round yet", "muted")]
        return draw.document(width, 64, body, TITLE)
    large: dict[str, Any] = {"font_size": 24, "font_weight": 700}
    ratio = "–" if speed.ratio is None else theme.times(speed.ratio)
    against = "plain decoding"
    if speed.ratio is not None:
        against += f", {speed.ratio_low:.2f} to {speed.ratio_high:.2f}"
    body = [
        draw.text(18, 36, ratio, **large),
        draw.text(18, 55, against, "muted", font_size=12),
        draw.text(width * 0.66, 36, theme.rate(speed.tokens_per_s), **large),
        draw.text(width * 0.66, 55, "tokens/s", "muted", font_size=12),
    ]
    plain = speed.plain_tokens_per_s
    scale = (width - 36) / max(speed.tokens_per_s, plain or 0.0)
    body.append(draw.rect(18, 68, scale * speed.tokens_per_s, 12, "accent", rx=2))
    if plain is not None:
        body.append(draw.rect(18, 83, scale * plain, 6, "neutral", rx=2))
        x = 18 + scale * plain
        body.append(draw.line(x, 63, x, 94, "text", 1.2, stroke_dasharray="3 2"))
    body.append(draw.text(18, 112, break_even(speed), "muted", font_size=11.5))
    return draw.document(width, 124, body, heading(speed))
