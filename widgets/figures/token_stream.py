"""The token stream: every generated token with the fate that brought it."""

from __future__ import annotations

from typing import Any, NamedTuple

from widgets import theme
from widgets.figures import svg as draw
from widgets.figures.place import Place, round_at
from workbench.core.trace import Round, Top, Trace

ALTERNATIVES = 4
SHORT = {"accepted": "a", "bonus": "b", "corrected": "c"}
LONG = {short: fate for fate, short in SHORT.items()}
ALL = slice(None)
COLUMNS = ("tokens", "fates", "round", "node", "index", "p", "q", "alternatives")


class TokenInfo(NamedTuple):
    """One emitted token; ``node`` is the row it came from or, the extra token, was drawn after."""

    text: str
    fate: str
    round: int
    place: int  # among the tokens of its round
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


class StreamColumns:
    """The stream as append-only columns: a longer trace only makes every column longer.

    ``words`` holds each distinct piece once; ``tokens`` and ``alternatives`` point into it, so that
    2,000 tokens are about 100 kB and a view redraws only what is new. Probabilities are in 1/1000,
    -1 = not known.

    Args:
        trace: what to begin with.
    """

    def __init__(self, trace: Trace):
        self._prompt = list(_prompt(trace))
        self._words: dict[str, int] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._rounds = 0
        self.extend(trace)

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self._columns["tokens"])

    @property
    def word_count(self) -> int:
        return len(self._words)

    def extend(self, trace: Trace) -> None:
        """Add the rounds of a longer trace of the same run; earlier ones are not looked at."""
        for position in range(self._rounds, len(trace.rounds)):
            for token in _tokens_of(trace, position, trace.rounds[position]):
                self._append(token)
        self._rounds = len(trace.rounds)

    def _append(self, token: TokenInfo) -> None:
        words, columns = self._words, self._columns
        columns["tokens"].append(words.setdefault(token.text, len(words)))
        others: list[int] = []
        for text, chance in token.alternatives:
            others += (words.setdefault(text, len(words)), round(chance * 1e3))
        columns["alternatives"].append(others)
        columns["fates"].append(SHORT[token.fate])
        columns["round"].append(token.round)
        columns["node"].append(token.node)
        columns["index"].append(token.place)
        columns["p"].append(_thousandths(token.p))
        columns["q"].append(_thousandths(token.q))

    def data(self, tokens: slice = ALL, words: slice = ALL) -> dict[str, Any]:
        """The columns of some of the tokens, with some of the words."""
        data: dict[str, Any] = {name: self._columns[name][tokens] for name in COLUMNS}
        data["fates"] = "".join(data["fates"])
        return {**data, "rounds": self._rounds, "words": list(self._words)[words]}

    def whole(self, tokens: slice = ALL, words: slice = ALL) -> dict[str, Any]:
        """The prompt as well."""
        return {"prompt": self._prompt, **self.data(tokens, words)}


def _thousandths(value: float | None) -> int:
    return -1 if value is None else round(value * 1000)


def stream_data(trace: Trace) -> dict[str, Any]:
    """The :class:`StreamColumns` of a whole trace, as the view takes them."""
    return StreamColumns(trace).whole()


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


class Piece(NamedTuple):
    """A run of characters of one token on one line of the static twin."""

    line: int
    column: int
    text: str
    token: int  # -1 = prompt


def _lines(stream: StreamInfo, columns: int) -> list[Piece]:
    """Break the stream into lines of at most ``columns`` characters; ⏎ ends a line visibly."""
    pieces, line, column = [], 0, 0
    parts = [(-1, text) for text in stream.prompt]
    parts += [(place, token.text) for place, token in enumerate(stream.tokens)]
    for token, text in parts:
        run = ""
        for letter in text.replace("\t", "    "):
            run += "⏎" if letter == "\n" else letter
            if letter == "\n" or column + len(run) >= columns:
                pieces.append(Piece(line, column, run, token))
                line, column, run = line + 1, 0, ""
        if run:
            pieces.append(Piece(line, column, run, token))
            column += len(run)
    return pieces


def svg(stream: StreamInfo, width: float = 760.0, most_lines: int = 16) -> str:
    """The static twin: the first lines of the stream, fates by fill and underline."""
    size, lead = 12.5, 22.0
    letter = size * draw.CHAR
    pieces = _lines(stream, max(20, int((width - 36) / letter)))
    first = min((p.line for p in pieces if p.token >= 0 and _chosen(stream, p)), default=0)
    start = max(0, first - most_lines // 2) if first >= most_lines else 0
    kept = [p for p in pieces if start <= p.line < start + most_lines]
    body = [draw.heading("Stream")]
    frames = []
    for piece in kept:
        x, y = 18 + piece.column * letter, 50 + (piece.line - start) * lead
        body += _drawn(stream, piece, x, y, letter, size)
        if _chosen(stream, piece):
            frame = (x - 0.5, y - 13, len(piece.text) * letter + 1, 18)
            frames.append(draw.rect(*frame, None, "select", stroke_width=2, rx=3))
    if not pieces:
        body.append(draw.text(18, 50, "nothing yet", "muted"))
    high = 50 + (max((p.line - start for p in kept), default=0) + 1) * lead
    left_out = max((p.line for p in pieces), default=0) + 1 - most_lines
    if left_out > 0:
        body.append(draw.text(18, high, f"{left_out} more lines", "muted", font_size=11))
        high += lead
    title = f"Stream of {len(stream.tokens)} tokens in {stream.rounds} rounds"
    return draw.document(width, high - 4, [*body, *_legend(width), *frames], title)


def _chosen(stream: StreamInfo, piece: Piece) -> bool:
    return piece.token >= 0 and stream.tokens[piece.token].round == stream.selected


def _drawn(
    stream: StreamInfo, piece: Piece, x: float, y: float, letter: float, size: float
) -> list[str]:
    if piece.token < 0:
        return [draw.text(x, y, piece.text, "muted", mono=True, font_size=size)]
    style = theme.FATES[stream.tokens[piece.token].fate]
    return _styled(piece.text, style, x, y, letter, size)


def _styled(
    words: str, style: theme.FateStyle, x: float, y: float, letter: float, size: float
) -> list[str]:
    wide = len(words) * letter
    return [
        draw.rect(x, y - 12, wide, 16, style.fill, rx=2),
        underline(style, x + 0.5, y + 4.5, wide - 1),
        draw.text(x, y, words, mono=True, font_size=size, textLength=wide, lengthAdjust="spacing"),
    ]


def underline(style: theme.FateStyle, x: float, y: float, wide: float) -> str:
    """Solid, dotted or wavy, so that a fate is told without colour."""
    if style.underline == "wavy":
        half = 2.0
        steps = max(1, round(wide / half))
        d = f"M{x:.1f},{y:.1f}" + "".join(
            f" q{half / 2:.1f},{2.4 * (-1) ** step:.1f} {half:.1f},0" for step in range(steps)
        )
        return draw.path(d, style.line, 1.1)
    dots = "1.6 2" if style.underline == "dotted" else None
    return draw.line(x, y, x + wide, y, style.line, 1.8, stroke_dasharray=dots)


def _legend(width: float) -> list[str]:
    size = 11.0
    letter, x, body = size * draw.CHAR, width - 18.0, []
    for fate in ("corrected", "bonus", "accepted"):
        x -= len(fate) * letter
        body += _styled(fate, theme.FATES[fate], x, 22, letter, size)
        x -= 12
    return body
