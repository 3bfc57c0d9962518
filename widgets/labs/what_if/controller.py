"""The what-if lab without its looks: a recorded run, a change, and what follows from it.

No UI library and no model is needed here. Every verb may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from widgets import theme
from widgets.controls.form import Field
from widgets.figures import draft_tree
from widgets.figures import what_if as picture
from widgets.labs import frame
from widgets.labs.board import Cell, Section
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.history import History, Travels
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import Knob, methods
from workbench.core.trace import Round, Trace
from workbench.engine.what_if import Change, Replay, RoundReplay, largest_tree, what_if

AS_RECORDED = "as recorded"
LETTERS = 12  # of a token beside its numbers
WARMTH = (AS_RECORDED, "0.0", "0.3", "0.5", "0.7", "0.8", "1.0", "1.2", "1.5")


class At(NamedTuple):
    """What the draft tree shows."""

    round: int
    node: int = -1


class WhatIfLab(Travels):
    """State of one what-if lab.

    Args:
        trace: the recorded run; None opens the embedded one.

    Raises:
        BadInput: a trace without rounds.
    """

    title = "What if"
    buttons: Mapping[str, str] = MappingProxyType({})
    knobs: Mapping[str, str] = {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset"}
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("tree", "tree", 320, 1.0), Cell("facts", "html", 320, 0.62)),
        (Cell("rounds", "plot", 260, 1.0),),
    )
    accepts = ".json"

    def __init__(self, trace: Trace | None = None):
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._error, self._node = "", -1
        self._made: tuple[Any, Replay] | None = None
        found = trace or recorded_trace()
        if found is None:
            raise BadInput("trace=None: no recorded run is installed; pass a trace")
        self._take(found)

    def _take(self, trace: Trace) -> None:
        if not trace.rounds:
            raise BadInput("trace: holds no round; record a run first")
        self.trace, self._most, self._node = trace, largest_tree(trace), -1
        self.sections = self._sections()
        self.history = History({f.key: f.knob.default for s in self.sections for f in s.fields})

    def _sections(self) -> tuple[Section, ...]:
        rules = (AS_RECORDED, *(card.name for card in methods("verifier")))
        rule = (
            Knob("verifier", "choice", AS_RECORDED, choices=rules, help="Another rule."),
            Knob("temperature", "choice", AS_RECORDED, choices=WARMTH, help="Of the target's law."),
        )
        cuts = tuple(
            Knob(name, "int", self._most[name], low=0, high=max(1, self._most[name]), help=text)
            for name, text in (
                ("width", "Most siblings below one node."),
                ("depth", "Most levels."),
                ("nodes", "Most nodes of a tree, in draft order."),
            )
        )
        look = (Knob("round", "int", 1, low=1, high=max(2, len(self.trace.rounds)), help="Shown."),)
        groups = [("What if the rule were …", rule), ("… and the trees smaller", cuts)]
        groups.append(("Look at", look))
        return tuple(
            Section(title, tuple(Field(knob.name, knob, "lab") for knob in knobs))
            for title, knobs in groups
        )

    # ---- reading -------------------------------------------------------------------------------

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        names = {card.name: card.title for card in methods("verifier")}
        return {"verifier": {AS_RECORDED: f"as recorded ({self.trace.verifier.name})", **names}}

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.history.now

    @property
    def place(self) -> int:
        """Position of the round shown."""
        return min(self.settings["round"], len(self.trace.rounds)) - 1

    def changed(self) -> Change:
        """The change that the form describes."""
        now = self.settings
        cut = {
            name: None if now[name] >= self._most[name] else now[name]
            for name in ("width", "depth", "nodes")
        }
        rule = None if now["verifier"] == AS_RECORDED else now["verifier"]
        warmth = None if now["temperature"] == AS_RECORDED else float(now["temperature"])
        return Change(rule, warmth, **cut)

    def replay(self) -> Replay:
        """The run under the change."""
        key = (id(self.trace), self.changed())
        if self._made is None or self._made[0] != key:
            self._made = (key, what_if(self.trace, self.changed()))
        return self._made[1]

    def contents(self) -> dict[str, Any]:
        """Everything that is shown."""
        with self._lock:
            replay, place = self.replay(), self.place
            one = replay.rounds[place]
            shown = shown_trace(self.trace, place, one)
            node = self._node if self._node < len(one.kept) else -1
            return {
                "head": frame.head_html("What if", self._from()),
                "progress": frame.progress_html("", 0.0),
                "error": frame.error_html(self._error),
                "tree": {
                    "round_count": len(self.trace.rounds),
                    "data": draft_tree.tree_data(draft_tree.info(shown, At(place, node))),
                    "selected": node,
                },
                "facts": self._facts(replay, one, node),
                "rounds": picture.figure(self._picture(replay)),
            }

    def _from(self) -> str:
        trace = self.trace
        warmth = trace.sampling.get("temperature", 0.0)
        return (
            f"{trace.model} · {trace.drafter.name} · {trace.verifier.name} · T {warmth:g}"
            f" · {len(trace.rounds)} rounds, no model needed"
        )

    def _picture(self, replay: Replay) -> picture.WhatIf:
        low = tuple(None if one.why else one.low for one in replay.rounds)
        high = tuple(None if one.why else one.high for one in replay.rounds)
        recorded = tuple(one.recorded for one in replay.rounds)
        return picture.WhatIf(recorded, low, high, self.place)

    def _facts(self, replay: Replay, one: RoundReplay, node: int) -> str:
        low, high = replay.bounds
        recorded = replay.recorded
        if not replay.answered:  # nothing to compare with: the whole run as it was
            recorded = sum(done.recorded for done in replay.rounds) / len(replay.rounds)
        numbers = [("tokens a round, recorded", f"{recorded:.2f}")]
        if replay.answered:
            numbers.append(("tokens a round, changed", _span(low, high)))
        numbers += [
            (f"round {self.place + 1}, recorded", f"{one.recorded:.2f}"),
            (
                f"round {self.place + 1}, changed",
                "unknown" if one.why else _span(one.low, one.high),
            ),
            ("nodes left", f"{len(one.kept)} of {len(self.trace.rounds[self.place].tokens)}"),
        ]
        if 0 <= node < len(one.kept):
            done = self.trace.rounds[self.place]
            label = theme.visible(self.trace.piece(done.tokens[one.kept[node]]))
            label = label if len(label) <= LETTERS else label[: LETTERS - 1] + "…"
            numbers.append((f"“{label}” recorded", theme.chance(done.accept[one.kept[node]])))
            value = "unknown" if one.why else _span(*one.accept[node])
            numbers.append((f"“{label}” changed", value))
        says = "".join(f'<p class="dw-why">{escape(text)}</p>' for text in replay.unknown)
        return (
            f'<p class="dw-why"><b>{escape(verdict(replay, self.changed()))}</b></p>'
            f"{frame.table_html(numbers)}"
            f'<h3 class="dw-title" style="margin-top:10px">What it cannot know</h3>'
            f"{says or '<p class=dw-small>Nothing: all of it follows from the trace.</p>'}"
        )

    def verbs(self) -> frozenset[str]:
        found = {"reset"}
        found |= {"undo"} if self.history.can_undo else set()
        found |= {"redo"} if self.history.can_redo else set()
        return frozenset(found)

    # ---- verbs ---------------------------------------------------------------------------------

    def change(self, key: str, value: Any) -> bool:
        """Change one setting; a bad value becomes a message and the old one stays."""
        fields = {f.key: f for s in self.sections for f in s.fields}
        with self._lock:
            try:
                if key not in fields:
                    raise BadInput(f"{key}={value!r}: no such setting of this lab")
                value, self._error = fields[key].check(value), ""
                self.history.put(key, value)
            except WorkbenchError as error:
                self._error = str(error)
            if key == "round":
                self._node = -1
        self._mark()
        return not self._error

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A click on a node, a scrubbed tree, or a click on a round of the chart."""
        kind, place = event.get("kind"), event.get("round")
        if kind == "point":
            data = event.get("customdata")
            place = data[0] if isinstance(data, list) else data
        if not isinstance(place, int) or not 0 <= place < len(self.trace.rounds):
            return
        if place != self.place:
            self.change("round", place + 1)
        if kind == "node":
            self._node = int(event.get("node", -1))
            self._mark()

    def _travelled(self) -> None:
        self._error = ""

    def open(self, data: bytes, name: str) -> bool:
        """Look at a saved trace; a file that is none becomes a message."""
        with self._lock:
            try:
                self._take(Trace.from_json(data, name))
                self._error = ""
            except WorkbenchError as error:
                self._error = str(error)
        self._mark()
        return not self._error

    def listen(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.append(listener)

    def _mark(self) -> None:
        for listener in list(self._listeners):
            listener()

    def close(self) -> None:
        """Forget the listeners; nothing runs here."""
        self._listeners.clear()


def shown_trace(trace: Trace, place: int, one: RoundReplay) -> Trace:
    """The trace with the shown round cut to what is left; its fates stay the recorded ones."""
    done = trace.rounds[place]
    rounds = list(trace.rounds)
    rounds[place] = cut_round(done, one)
    return trace.with_(rounds=rounds)


def cut_round(done: Round, one: RoundReplay) -> Round:
    """A round with only the kept nodes and their new chances (the middle of the bounds)."""
    kept = list(one.kept)
    number = {node: index for index, node in enumerate(kept)}
    path: list[int] = []
    for node in done.path:
        if node not in number:
            break
        path.append(number[node])

    def rows(values: list) -> list:
        return [values[0], *(values[node + 1] for node in kept)] if values else []

    def nodes(values: Any) -> Any:
        return [values[node] for node in kept] if values else values

    return msgspec.structs.replace(
        done,
        tokens=nodes(done.tokens),
        parent=[number.get(done.parent[node], -1) for node in kept],
        accept=[(low + high) / 2 for low, high in one.accept],
        stop=rows(done.stop),
        path=path,
        p_node=nodes(done.p_node),
        q_node=nodes(done.q_node),
        score=nodes(done.score),
        p_top=rows(done.p_top),
        q_top=nodes(done.q_top),
        p_bits=rows(done.p_bits),
        q_bits=nodes(done.q_bits),
    )


def verdict(replay: Replay, change: Change) -> str:
    """The answer in one sentence."""
    if change == Change():
        return "The run as it was recorded. Change the rule, the temperature or the trees."
    if not replay.answered:
        return "The trace does not hold what this change needs."
    low, high = replay.bounds
    gap_low, gap_high = low - replay.recorded, high - replay.recorded
    if gap_low > 0.005:
        return f"More: {_signed(gap_low, gap_high)} tokens a round."
    if gap_high < -0.005:
        return f"Fewer: {_signed(gap_low, gap_high)} tokens a round."
    if gap_high - gap_low < 0.01:
        return "No difference to speak of."
    return f"Not decided by what the trace kept: {_signed(gap_low, gap_high)} tokens a round."


def _signed(low: float, high: float) -> str:
    return f"{low:+.2f}" if high - low < 0.01 else f"{low:+.2f} to {high:+.2f}"


def _span(low: float, high: float) -> str:
    return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} – {high:.2f}"
