"""What a lab shows of a growing run, kept up round by round, so that a draw costs the same late.

*Idea*: each of these is a function of the whole trace. While a run goes on, a trace differs from
the one before by its new rounds only, which are the same objects; so they are added to what was
found before. A trace of another run starts over.
"""

from __future__ import annotations

from typing import Any

from widgets.figures.method_picture import kind_of
from widgets.figures.token_stream import StreamColumns
from workbench.core.trace import Round, Trace

TAIL_TOKENS = 64  # the tail of the stream is folded into its whole from this many tokens on ...
TAIL_RATIO = 0.25  # ... and this share of the whole


class Growing:
    """How much of a growing run was looked at."""

    def __init__(self) -> None:
        self._count = 0
        self._ends: tuple[Round, ...] = ()

    def first_new(self, trace: Trace) -> int:
        """Position of the first round not looked at before; 0 where it is another run."""
        rounds, count = trace.rounds, self._count
        same = 0 < count <= len(rounds) and all(
            a is b for a, b in zip(self._ends, (rounds[0], rounds[count - 1]), strict=True)
        )
        self._count = len(rounds)
        self._ends = (rounds[0], rounds[-1]) if rounds else ()
        return count if same else 0


class Tally:
    """The numbers of the speed corner while a run goes on."""

    def __init__(self) -> None:
        self._growing = Growing()
        self._start()

    def _start(self) -> None:
        self._rounds = self._emitted = self._kept = self._levels = 0
        self._ms = 0.0

    def summary(self, trace: Trace) -> dict[str, float]:
        """``tokens_per_s``, ``mean_emitted`` and ``acceptance_ratio`` of ``trace.summary``."""
        first = self._growing.first_new(trace)
        if not first:
            self._start()
        for done in trace.rounds[first:]:
            self._rounds += 1
            self._emitted += len(done.emitted)
            self._kept += done.accepted
            self._levels += max(done.depth, default=0)
            self._ms += done.ms.total
        return {
            "tokens_per_s": self._emitted / self._ms * 1e3 if self._ms else 0.0,
            "mean_emitted": self._emitted / self._rounds if self._rounds else 0.0,
            "acceptance_ratio": self._kept / self._levels if self._levels else 0.0,
        }


class Kind:
    """Which picture of its own a trace has: found from the rounds that reported something new."""

    def __init__(self) -> None:
        self._growing = Growing()
        self._telling: list[Round] = []
        self._keys: set[str] = set()

    def of(self, trace: Trace) -> str:
        """The same as ``method_picture.kind_of``."""
        first = self._growing.first_new(trace)
        if not first:
            self._telling, self._keys = [], set()
        for done in trace.rounds[first:]:
            keys = {*done.report, *(["lanes"] if done.lanes else [])}
            if not keys <= self._keys:
                self._telling.append(done)
                self._keys |= keys
        return kind_of(trace.with_(rounds=self._telling))


class LiveStream:
    """The stream in two parts: the whole, sent seldom, and the tail since then, sent often.

    A view that has both shows all of it at any time. ``number`` says to which whole a tail belongs.
    """

    def __init__(self) -> None:
        self._growing = Growing()
        self._columns: StreamColumns | None = None
        self._tokens = self._words = 0  # in the whole
        self.number = 0

    def show(self, trace: Trace, running: bool) -> tuple[int, int]:
        """Take a trace in; the numbers by which to tell whether the whole and the tail changed."""
        if self._growing.first_new(trace) and self._columns is not None:
            self._columns.extend(trace)
            tail = len(self._columns) - self._tokens
            fold = tail > max(TAIL_TOKENS, TAIL_RATIO * self._tokens) if running else tail > 0
        else:
            self._columns, fold = StreamColumns(trace), True
        if fold:
            self.number += 1
            self._tokens, self._words = len(self._columns), self._columns.word_count
        return self.number, len(self._columns)

    def whole(self) -> dict[str, Any]:
        """Everything up to the last fold."""
        assert self._columns is not None  # show() comes first
        part = slice(self._tokens), slice(self._words)
        return {"number": self.number, **self._columns.whole(*part)}

    def tail(self) -> dict[str, Any]:
        """What came after the whole; nothing where that is all."""
        assert self._columns is not None  # show() comes first
        if len(self._columns) == self._tokens:
            return {}
        part = slice(self._tokens, None), slice(self._words, None)
        return {"of": self.number, **self._columns.data(*part)}
