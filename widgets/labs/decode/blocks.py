"""What each block of the decode lab shows, for either host: data, figures and HTML, no widgets.

*Idea*: the two views differ only in how they hold a block. :class:`Presenter` compares what the lab
shows now with what it showed last and hands out the blocks that changed, so a view never redraws
a picture that is right already. While a run is going only the stream, the tree and three numbers
move, and each costs as much as the rounds that are new; the rest is drawn when it pauses or ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from types import ModuleType
from typing import Any

from widgets import theme
from widgets.figures import (
    acceptance_map,
    accepted_length,
    draft_tree,
    method_picture,
    node_law,
)
from widgets.labs import frame
from widgets.labs.decode import settings as lab
from widgets.labs.decode.engine import NodeLaws
from widgets.labs.decode.growing import LiveStream, Tally
from widgets.labs.decode.lab_view import LabView
from widgets.labs.decode.numbers import speed_html, verdict_html
from widgets.labs.decode.selection import Selection
from widgets.labs.decode.sentences import NodeFacts, node_facts
from widgets.views.packed import packed
from workbench.core.errors import WorkbenchError
from workbench.core.trace import Trace

TITLE = "Decode lab"
ERROR_BLOCKS = (
    "prompt",
    "drafter",
    "policy",
    "verifier",
    "schedule",
    "model",
    "run",
    "speed",
    "trace",
)
RUN_BUTTONS = {"start": "▶ Start", "pause": "❚❚ Pause", "step": "❚▶ Step", "stop": "■ Stop"}
PICTURE_BUTTONS = {"picture": "⇄"}
PICTURE_HELP = "Switch between the method's own picture and the acceptance map"
KNOB_BUTTONS = {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset"}
FIRST = "Nothing was drafted yet. Press Start or Step."
BOUND = "bound"
BOUND_HELP = (
    "No lossless rule keeps one of the siblings more often, on average over their draws;"
    " two numbers where the trace does not hold both laws whole."
)
# view -> its fields and the blocks that fill them, in the order in which they are put
VIEW_FIELDS = {
    "stream": {"running": "running", "data": "stream", "tail": "tail", "selected": "round"},
    "tree": {"round_count": "rounds", "data": "tree", "selected": "chosen"},
}


def fields_of(view: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a view that changed, data packed."""
    found = {f: changes[block] for f, block in VIEW_FIELDS[view].items() if block in changes}
    return {f: packed(value) if isinstance(value, dict) else value for f, value in found.items()}


class Presenter:
    """Hands out what changed.

    Args:
        laws: (round position, node) -> what every rule would do with it.
    """

    def __init__(self, laws: Callable[[int, int], NodeLaws | None]):
        self._laws = laws
        self._last: dict[str, Any] = {}
        self._trace: Trace | None = None
        self._trace_number = 0
        self._stream, self._tally = LiveStream(), Tally()
        self._lock = threading.Lock()

    def changes(self, view: LabView) -> dict[str, Any]:
        """Block -> what it shows now, for the blocks whose input is not what it was."""
        found = {}
        with self._lock:
            self._count(view.trace)
            for block, key, draw in self._plan(view):
                if self._last.get(block, ()) != (key,):
                    self._last[block] = (key,)
                    found[block] = draw()
        return found

    def _count(self, trace: Trace | None) -> None:
        """Number the traces that look different; comparing rounds stops at identical objects."""
        old = self._trace
        same = old is trace or (
            old is not None
            and trace is not None
            and (old.prompt, old.rounds, old.baseline)
            == (trace.prompt, trace.rounds, trace.baseline)
        )
        if not same:
            self._trace, self._trace_number = trace, self._trace_number + 1

    def _plan(self, view: LabView) -> list[tuple[str, Any, Callable[[], Any]]]:
        at, shown = view.selection, self._trace_number
        trace = view.trace or empty_trace(view)
        calm = view.state != "running"
        round_key = (shown, at.round) if calm else "live"
        node_key = (shown, at) if calm or not view.following else "live"
        words_key = view.state if view.live else (shown, view.state)
        whole, tail = self._stream.show(trace, not calm)
        plan = [
            ("head", view.model_line, lambda: frame.head_html(TITLE, view.model_line)),
            (
                "progress",
                (view.line, view.fraction),
                lambda: frame.progress_html(view.line, view.fraction),
            ),
            ("verbs", view.verbs, lambda: view.verbs),
            ("notice", view.notice, lambda: note_html(view.notice)),
            ("stream", whole, self._stream.whole),
            ("tail", (whole, tail), self._stream.tail),
            ("round", at.round, lambda: at.round),
            ("chosen", at, lambda: at.node),
            ("rounds", len(trace.rounds), lambda: len(trace.rounds)),
            ("running", not calm, lambda: not calm),
            (
                "tree",
                (shown, at.round),
                lambda: draft_tree.tree_data(draft_tree.info(trace, at)),
            ),
            ("node", node_key, lambda: self._node(trace, view, node_key)),
            ("law", node_key, lambda: _figure(node_law, trace, at, node_key)),
            ("map", (round_key, view.pictured), lambda: self._map(trace, at, round_key, view)),
            ("length", round_key, lambda: _figure(accepted_length, trace, at, round_key)),
            ("speed", (shown, view.state), lambda: self._speed(trace, view)),
            ("verdict", words_key, lambda: verdict_html(trace, view.state)),
            ("form", (view.form_version, _picked(view)), lambda: view.settings),
        ]
        for block in ERROR_BLOCKS:
            text = view.errors.get(block)
            plan.append((f"error {block}", text, lambda text=text: frame.error_html(text)))
        return plan

    def _speed(self, trace: Trace, view: LabView) -> str:
        return speed_html(trace, view.state, self._tally.summary(trace) if view.live else None)

    def _map(self, trace: Trace, at: Selection, key: Any, view: LabView) -> dict[str, Any]:
        """The method's own picture where it has one and it is wanted, else the acceptance map."""
        own = view.pictured and key != "live" and method_picture.kind_of(trace)
        return _figure(method_picture if own else acceptance_map, trace, at, key)

    def _node(self, trace: Trace, view: LabView, key: Any) -> str:
        if key == "live":
            return facts_html("Click a token or a node to look at it while the run goes on.")
        if not trace.rounds:
            return facts_html("No round was recorded.") if view.trace else facts_html(FIRST)
        return node_html(trace, view, self._laws)


def _figure(picture: ModuleType, trace: Trace, at: Selection, key: Any) -> dict[str, Any]:
    """A chart of the trace; while a run is going an empty one that says when it is drawn."""
    if key != "live":
        return picture.figure(picture.info(trace, at))
    figure = picture.figure(picture.info(trace.with_(rounds=[]), None))
    for annotation in figure["layout"].get("annotations", []):
        annotation["text"] = "drawn when the run pauses or ends"
    return figure


def _picked(view: LabView) -> tuple:
    return tuple(view.settings[family] for family in lab.FAMILY_TITLES)


def empty_trace(view: LabView) -> Trace:
    """A trace without rounds, for a lab in which nothing ran yet."""
    from workbench.core.trace import Method

    names = {family: Method(view.settings[family]) for family in lab.FAMILY_TITLES}
    rest = {"sampling": {}, "prompt": view.settings["prompt"], "prompt_tokens": []}
    return Trace(model=view.model_line, device="", dtype="", **names, **rest)


def note_html(text: str) -> str:
    return f'<p class="dw-note">{escape(text)}</p>' if text else ""


def facts_html(text: str) -> str:
    return f'<div class="dw-facts">{note_html(text)}</div>'


def extra_title(facts: NodeFacts) -> str:
    """Title of an extra token; a node's title is in the figure of its laws."""
    if facts.fate not in ("bonus", "corrected"):
        return ""
    fate = f'<span style="color:var(--dw-{facts.fate})">{facts.fate}</span>'
    return f'<h3 class="dw-title">{escape(facts.title)} · {fate}</h3>'


def bound_row(laws: NodeLaws) -> tuple[str, str]:
    """What no rule exceeds; two numbers where the trace does not hold the laws whole."""
    label = f"bound: one of the {laws.siblings} siblings" if laws.siblings > 1 else BOUND
    low, high = theme.chance(laws.low), theme.chance(laws.high)
    return label, high if low == high else f"{low} to {high}"


def node_html(trace: Trace, view: LabView, laws: Callable[[int, int], NodeLaws | None]) -> str:
    """Numbers of the selected node, what other rules would do with it, and why it ended so."""
    facts = node_facts(trace, view.selection)
    rows, heading = facts.numbers, ""
    if facts.chance is not None:
        try:
            others = laws(view.selection.round, view.selection.node)
        except WorkbenchError:
            others = None
        heading = '<h3 class="dw-title">Chance to be kept here, by rule</h3>'
        rows = [(f"▸ {facts.rule}", theme.chance(facts.chance))]
        if others is not None:
            by_rule = {t: c for t, c in others.by_rule.items() if t != facts.rule}
            rows.append(bound_row(others))
            rows += [(t, theme.chance(chance)) for t, chance in by_rule.items()]
        rows += facts.numbers
    return (
        f'<div class="dw-facts">{extra_title(facts)}'
        f'<p class="dw-why"><b>{escape(facts.why_title)}</b> {escape(facts.why)}</p>'
        f"{heading}{frame.table_html(rows, {BOUND: BOUND_HELP})}</div>"
    )
