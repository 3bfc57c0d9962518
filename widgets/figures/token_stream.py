"""The token stream: every generated token with the fate that brought it."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

from widgets import theme
from widgets.figures.place import Place, round_at
from workbench.core.trace import Round, Top, Trace

ALTERNATIVES = 4
SHORT = {"accepted": "a", "bonus": "b", "corrected": "c"}
LONG = {short: fate for fate, short in SHORT.items()}


class TokenInfo(NamedTuple):
    """One emitted token. ``node`` is the row it came from or, for the extra token, was drawn after."""

    text: str
    fate: str
    round: int
    index: int
    node: int
    depth: int
    p: float | None
    q: float | None
    alternatives: tuple[tuple[str, float], ...]


class StreamInfo(NamedTuple):
    """Prompt pieces, emitted tokens in order, and the round that is selected (-1 = none)."""

    prompt: tuple[str, ...]
    tokens: tuple[TokenInfo, ...]
    rounds: int
    selected: int


def info(trace: Trace, at: Place | None = None) -> StreamInfo:
    """The stream of a trace; works on an unfinished one."""
    tokens = [
        token
        for position, round_ in enumerate(trace.rounds)
        for token in _tokens_of(trace, position, round_)
    ]
    selected = -1 if at is None else round_at(trace, at)[0]
    return StreamInfo(_prompt(trace), tuple(tokens), len(trace.rounds), selected)


def _prompt(trace: Trace) -> tuple[str, ...]:
    known = all(token in trace.pieces for token in trace.prompt_tokens)
    if known and trace.prompt_tokens:
        return tuple(trace.piece(token) for token in trace.prompt_tokens)
    return (trace.prompt,) if trace.prompt else ()


def _tokens_of(trace: Trace, position: int, round_: Round) -> list[TokenInfo]:
    found = []
    for index, (token, fate) in enumerate(zip(round_.emitted, round_.fates, strict=True)):
        kept = index < len(round_.path)
        node = round_.path[index] if kept else (round_.path[-1] if round_.path else -1)
        row = (round_.parent[node] if kept else node) + 1
        top = round_.p_top[row] if round_.p_top else None
        found.append(
            TokenInfo(
                trace.piece(token),
                fate,
                position,
                index,
                node,
                index + 1,
                round_.p_node[node] if kept else _in_top(top, token),
                round_.q_node[node] if kept and round_.q_node is not None else None,
                _alternatives(trace, top, token),
            )
        )
    return found


def _in_top(top: Top | None, token: int) -> float | None:
    if top is None or token not in top.ids:
        return None
    return top.probs[top.ids.index(token)]


def _alternatives(trace: Trace, top: Top | None, token: int) -> tuple[tuple[str, float], ...]:
    if top is None:
        return ()
    pairs = zip(top.ids, top.probs, strict=True)
    others = [(trace.piece(other), prob) for other, prob in pairs if other != token]
    return tuple(others[:ALTERNATIVES])


def stream_data(trace: Trace) -> dict[str, Any]:
    """The stream as append-only columns: a longer trace only makes every column longer.

    ``words`` holds each distinct piece once; ``tokens`` and ``alternatives`` point into it, so 2,000
    tokens are about 100 kB and a view redraws only what is new. Probabilities are in 1/1000, -1 = not
    known.
    """
    stream, words = info(trace), {}

    def word(text: str) -> int:
        return words.setdefault(text, len(words))

    def thousandths(value: float | None) -> int:
        return -1 if value is None else round(value * 1000)

    data: dict[str, Any] = {
        "prompt": list(stream.prompt),
        "tokens": [word(token.text) for token in stream.tokens],
        "fates": "".join(SHORT[token.fate] for token in stream.tokens),
        "round": [token.round for token in stream.tokens],
        "node": [token.node for token in stream.tokens],
        "index": [token.index for token in stream.tokens],
        "p": [thousandths(token.p) for token in stream.tokens],
        "q": [thousandths(token.q) for token in stream.tokens],
        "alternatives": [
            [x for text, prob in token.alternatives for x in (word(text), thousandths(prob))]
            for token in stream.tokens
        ],
        "rounds": stream.rounds,
    }
    data["words"] = list(words)
    return data


def rows(stream: StreamInfo) -> list[dict[str, Any]]:
    """One row per emitted token."""
    return [
        {
            "position": position,
            "text": token.text,
            "fate": token.fate,
            "round": token.round,
            "depth": token.depth,
            "p": token.p,
            "q": token.q,
        }
        for position, token in enumerate(stream.tokens)
    ]


def html(stream: StreamInfo) -> str:
    """The stream as a selectable static block of text; colours come from :func:`theme.css`."""
    parts = [f'<span class="dw-prompt">{_marked("".join(stream.prompt))}</span>']
    for token in stream.tokens:
        title = f"{token.fate} · round {token.round + 1} · p {theme.chance(token.p)}"
        chosen = " dw-chosen" if token.round == stream.selected else ""
        parts.append(
            f'<span class="dw-token dw-{token.fate}{chosen}" title="{title}">'
            f"{_marked(token.text)}</span>"
        )
    return f'<div class="dw dw-stream">{"".join(parts)}</div>'


def _marked(text: str) -> str:
    return escape(text).replace("\n", '<span class="dw-mark">⏎</span>\n')
