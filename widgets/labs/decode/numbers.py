"""The speed corner: the measured ratio with its interval, where the time went, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from widgets import theme
from widgets.figures import speed, time_split
from workbench.core.trace import Trace

ACCEPTANCE = {  # label -> key of Trace.summary, what it means
    "tokens a round": (
        "mean_emitted",
        "drafted tokens kept + the one extra token, mean over rounds",
    ),
    "kept a round": ("mean_accepted", "drafted tokens kept in a round, mean over rounds"),
    "of depth": (
        "acceptance_ratio",
        "drafted tokens kept / deepest level drafted, over all rounds",
    ),
    "of nodes": ("node_ratio", "drafted tokens kept / nodes drafted, over all rounds"),
}


CROSSING = (
    "tokens, scores and laws that are copied between the devices of draft and target; their time is"
    " part of drafting (of the rest where both work at once), not a part of its own"
)


def speed_html(trace: Trace, state: str, summary: Mapping[str, float] | None = None) -> str:
    """Three numbers while a run is going, the whole comparison when it is done.

    Args:
        summary: the numbers of ``trace.summary`` that are shown live, where they are known.
    """
    if not trace.rounds:
        return _block("Speed", '<p class="dw-note">Measured when something was generated.</p>')
    if state in ("running", "paused"):
        return _block("Speed", _live(trace.summary if summary is None else summary))
    return _block("Speed", _dials(trace) + _split(trace) + _words(trace))


def _block(title: str, body: str) -> str:
    return f'<h3 class="dw-title">{title}</h3>{body}'


def _dial(number: str, label: str, meaning: str) -> str:
    return (
        f'<div title="{escape(meaning, True)}"><div class="dw-big">{escape(number)}</div>'
        f'<div class="dw-small">{escape(label)}</div></div>'
    )


def _live(summary: Mapping[str, float]) -> str:
    dials = _dial(theme.rate(summary["tokens_per_s"]), "tokens/s", speed.EXPLAIN["tokens_per_s"])
    for label in ("tokens a round", "of depth"):
        key, meaning = ACCEPTANCE[label]
        shown = theme.percent(summary[key]) if label == "of depth" else f"{summary[key]:.2f}"
        dials += _dial(shown, "kept of depth" if label == "of depth" else label, meaning)
    return f'<div class="dw-dials">{dials}</div>'


def _dials(trace: Trace) -> str:
    found = speed.info(trace)
    if found.ratio is None:
        ratio = _dial("–", "plain not measured", speed.EXPLAIN["ratio"])
    else:
        label = f"plain, {found.ratio_low:.2f} to {found.ratio_high:.2f}"
        ratio = _dial(theme.times(found.ratio), label, speed.EXPLAIN["ratio"])
    rate = _dial(theme.rate(found.tokens_per_s), "tokens/s", speed.EXPLAIN["tokens_per_s"])
    if found.plain_tokens_per_s is not None:
        plain = theme.rate(found.plain_tokens_per_s)
        rate += _dial(plain, "plain tokens/s", "plain decoding, same model, prompt and session")
    return f'<div class="dw-dials">{ratio}{rate}</div>'


def _split(trace: Trace) -> str:
    split = time_split.info(trace)
    bars = "".join(
        f'<i style="flex:{max(row["share"], 0.001):.4f};'
        f'background:var(--dw-{time_split.PARTS[row["part"]][0].replace("_", "-")})"'
        f' title="{row["part"]} {theme.milliseconds(row["ms"])} a round"></i>'
        for row in time_split.rows(split)
    )
    words = escape(time_split.caption(split))
    return (
        f'<div class="dw-split" role="img" aria-label="{words}">{bars}</div>'
        f'<div class="dw-small">{words}</div>{_crossing(trace, split)}'
    )


def _crossing(trace: Trace, split: time_split.SplitInfo) -> str:
    """What the copies between two devices took, a round and in all; empty where nothing crossed."""
    moved = trace.transfer
    if moved is None:
        return ""
    total = f"{theme.milliseconds(moved.ms)}, {theme.size(moved.bytes)} in the run"
    words = f"{time_split.crossing(split)} · {total}".replace(" ms", "\u00a0ms")
    return (
        f'<div class="dw-small"><abbr title="{escape(CROSSING, True)}">{escape(words)}</abbr></div>'
    )


def _words(trace: Trace) -> str:
    summary, found = trace.summary, speed.info(trace)
    parts = []
    for label, (key, meaning) in ACCEPTANCE.items():
        if key == "mean_emitted":
            continue  # in the line below, beside what it has to reach
        value = f"{summary[key]:.2f}" if key.startswith("mean") else theme.percent(summary[key])
        words = f"{value} {label}".replace(" ", "\u00a0")
        parts.append(f'<abbr title="{escape(meaning, True)}">{words}</abbr>')
    line = f'<div class="dw-small">{" · ".join(parts)}</div>'
    if found.break_even_emitted is not None:
        even = escape(speed.EXPLAIN["break_even_emitted"], True)
        line += f'<div class="dw-small"><abbr title="{even}">{speed.break_even(found)}</abbr></div>'
    return line


def verdict_html(trace: Trace, state: str) -> str:
    """Whether speculation pays here, and if not, which cost is to blame and what to change."""
    if state == "measuring":
        words = "Plain decoding is being measured, to compare with."
    elif state in ("running", "paused"):
        words = (
            "While a run is going the stream, the tree and three numbers move; the charts are drawn"
            " when it pauses or ends, and plain decoding is measured after it."
        )
    else:
        words = speed.verdict_sentence(trace)
    return f'<p class="dw-verdict">{escape(words)}</p>'
