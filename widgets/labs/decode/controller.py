"""The decode lab without its looks: settings, one live run, a selection, errors, and listeners.

No UI library is imported here. Views read :meth:`DecodeController.view` and call the verbs; every
verb may be called from any thread and returns at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from widgets.labs.decode import selection as select
from widgets.labs.decode import settings as lab
from widgets.labs.decode.engine import Engine, NodeLaws, engine, name_of
from widgets.labs.decode.growing import Kind
from widgets.labs.decode.job import BUSY, LIVE, Job, Models, Status
from widgets.labs.decode.lab_view import LabView, model_line
from widgets.labs.decode.selection import ROOT, Selection
from widgets.labs.history import History, Travels
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.trace import Trace


class DecodeController(Travels):
    """State of one decode lab.

    Args:
        model: a name (``zoo:target``, a folder, a hub id) or a loaded model; None keeps what
            ``trace`` or the default says.
        draft: the draft model likewise; None keeps what ``trace`` or the default says.
        prompt: text to continue; None keeps what ``trace`` says.
        trace: a run to show at once.
        tools: what runs and loads; the workbench's own unless a test brings another.
        settings: see :func:`widgets.labs.decode.settings.first_settings`.
    """

    def __init__(
        self,
        model: Any = None,
        draft: Any = None,
        prompt: str | None = None,
        *,
        trace: Trace | None = None,
        tools: Engine | None = None,
        **settings: Any,
    ):
        names = {k: name_of(m) for k, m in (("model", model), ("draft", draft)) if m is not None}
        given = {"prompt": prompt, **names, **lab.placement(model, draft), **settings}
        given = {key: value for key, value in given.items() if value is not None}
        base = lab.settings_of(trace) if trace is not None else {}
        self.history = History(lab.first_settings(given, base))
        self._form = lab.all_fields()
        self._engine = tools
        loaded = {name_of(m): m for m in (model, draft) if m is not None and not isinstance(m, str)}
        self._models = Models(self._tools, loaded)
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._job: Job | None = None
        self._shown, self._line = trace, ""
        self._selection, self._following = Selection(), False
        if trace is not None:
            self._selection = select.of_round(trace, select.telling_round(trace))
            self._line = "recorded run, press Start for a live one"
        self._errors: dict[str, str] = {}
        self._form_version = 0
        self._baselines: dict[tuple, Any] = {}
        self._pictured, self._kind = True, Kind()

    # ---- reading -------------------------------------------------------------------------------

    def view(self) -> LabView:
        """A consistent picture of the lab for drawing."""
        with self._lock:
            status, trace = self._status(), self._take_trace()
            errors = {**self._errors, **(self._job.errors if self._job else {})}
            return LabView(
                status.state,
                status.line,
                status.fraction,
                model_line(self._models.known(self.model_name), self.model_name, trace),
                trace,
                self._selection,
                self.history.now,
                self._form_version,
                errors,
                self._notice(status),
                self._verbs(status.state, trace),
                self._following,
                self._pictured,
            )

    @property
    def model_name(self) -> str:
        """The target of the next start."""
        return self.history.now["model"]

    @property
    def state(self) -> str:
        return self._status().state

    @property
    def busy(self) -> bool:
        """Whether time is being measured, which drawing would take from."""
        return self.state in ("running", "measuring")

    @property
    def trace(self) -> Trace | None:
        with self._lock:
            return self._take_trace()

    def laws(self, position: int, node: int) -> NodeLaws | None:
        """What every rule that the trace allows to compute would do with a node; None: no node."""
        trace = self.trace
        if trace is None or not 0 <= position < len(trace.rounds) or node < 0:
            return None
        return self._tools().laws(trace.rounds[position], node)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` (from any thread) whenever something changed."""
        with self._lock:
            self._listeners.append(listener)

    # ---- settings ------------------------------------------------------------------------------

    def change(self, key: str, value: Any, *, from_form: bool = False) -> bool:
        """Change one setting; a bad value becomes an error in its block and the old one stays."""
        block = lab.section_of(key)
        try:
            if key not in self._form:
                raise BadInput(f"{key}={value!r}: no such setting of this lab")
            value, error = self._form[key].check(value), None
        except WorkbenchError as problem:
            error = problem
        with self._lock:
            self._clear(block)
            if error is not None:
                self._errors[block] = str(error)
            elif not self.history.put(key, value) and from_form:
                return True
            self._form_version += not from_form
        self._mark()
        return error is None

    def _travelled(self) -> None:
        for block in ("prompt", "model", *lab.FAMILY_TITLES):
            self._clear(block)
        self._form_version += 1

    def _clear(self, block: str) -> None:
        self._errors.pop(block, None)
        if self._job is not None:
            self._job.errors.pop(block, None)

    def picture(self) -> None:
        """Switch the lower left chart between the method's own picture and the acceptance map."""
        with self._lock:
            self._pictured = not self._pictured
        self._mark()

    # ---- selection -----------------------------------------------------------------------------

    def select_round(self, position: int) -> None:
        self._select(lambda trace: select.of_round(trace, position))

    def select_node(self, position: int, node: int) -> None:
        self._select(lambda trace: select.of_node(trace, position, node))

    def select_token(self, position: int, index: int) -> None:
        self._select(lambda trace: select.of_token(trace, position, index))

    def handle(self, event: Mapping[str, Any]) -> None:
        """An event of a view: ``token``, ``node``, ``round``, or a ``point`` of the map."""
        position = event.get("round")
        if event.get("kind") == "point":
            position = (event.get("customdata") or [None])[0]
        if not isinstance(position, int) or position < 0:
            return
        if event.get("kind") == "token":
            self.select_token(position, int(event.get("index", 0)))
        elif event.get("kind") == "node":
            self.select_node(position, int(event.get("node", ROOT)))
        else:
            self.select_round(position)

    def _select(self, choose: Callable[[Trace], Selection]) -> None:
        with self._lock:
            trace = self._take_trace()
            if trace is None or not trace.rounds:
                return
            try:
                self._selection = choose(trace)
            except IndexError:
                return  # the click was on a picture of an earlier run
            self._following = False
        self._mark()

    # ---- the run -------------------------------------------------------------------------------

    def start(self) -> None:
        """Run with the settings of now; continue where a run is paused."""
        self._begin("start")

    def step(self) -> None:
        """One round: of the paused run, or the first round of a new one."""
        self._begin("step")

    def pause(self) -> None:
        with self._lock:
            if self._job is not None:
                self._job.tell("pause")
        self._mark()

    def stop(self) -> None:
        """End the run; what was generated stays."""
        with self._lock:
            job = self._job
        if job is not None:
            job.stop()
        self._mark()

    def warm(self) -> None:
        """Load the model in the background, so that a wrong name shows before the first start."""
        with self._lock:
            if self._job is None and self._models.known(self.model_name) is None:
                self._launch(None)

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Until nothing runs in the background any more; False if that took too long."""
        return self._job is None or self._job.wait(timeout_s)

    def _begin(self, verb: str) -> None:
        with self._lock:
            state = self._status().state
            if state in LIVE:
                self._job.tell(verb)
            elif self._free(state):
                self._errors.clear()
                self._following = True
                self._launch(verb)
        self._mark()

    def _launch(self, verb: str | None) -> None:
        if verb is not None:
            self._shown = None if self._job is None else self._job.trace or self._shown
        settings = dict(self.history.now)
        self._job = Job(self._tools, self._models, settings, self._baselines, self._mark)
        self._job.begin(verb)

    # ---- saved traces --------------------------------------------------------------------------

    def show(self, trace: Trace, line: str = "") -> None:
        """Show a finished run instead of the last one; its settings become one undoable change."""
        with self._lock:
            if self._status().state in BUSY:
                self._errors["trace"] = "A run is under way: press Stop, then open the trace."
            else:
                self._errors.clear()
                self._job, self._shown = None, trace
                self._line = line or f"saved run of {trace.model}"
                self._selection = select.of_round(trace, select.telling_round(trace))
                self._following = False
                self.history.replace(lab.settings_of(trace))
                self._form_version += 1
        self._mark()

    def open(self, data: bytes, name: str) -> bool:
        """Show a saved trace; a file that is none becomes an error beside the button."""
        try:
            trace = Trace.from_json(data, name)
        except WorkbenchError as error:
            with self._lock:
                self._errors["trace"] = str(error)
            self._mark()
            return False
        self.show(trace, f"saved run from {name}")
        return True

    def close(self) -> None:
        """Stop what runs and forget the listeners; safe to call twice."""
        with self._lock:
            self._listeners.clear()
        self.stop()

    # ---- small ---------------------------------------------------------------------------------

    def _tools(self) -> Engine:
        if self._engine is None:  # not under the lock: the import takes a second
            self._engine = engine()
        return self._engine

    def _status(self) -> Status:
        job = self._job
        if job is None or (job.status.state == "idle" and self._shown is not None):
            return Status("idle", self._line, 0.0)
        return job.status

    def _take_trace(self) -> Trace | None:
        """The run's trace, or what was shown before; follows the last round until a click.

        When the run is over, that is the last round in which there is something to see.
        """
        trace = self._job.trace if self._job else None
        if trace is not None and self._following and trace.rounds:
            live = self._status().state in LIVE
            last = len(trace.rounds) - 1 if live else select.last_drafted(trace)
            self._selection = select.of_round(trace, last)
        return trace or self._shown

    def _notice(self, status: Status) -> str:
        stale = self._job is not None and dict(self.history.now) != dict(self._job.settings)
        return "Changes apply from the next start." if status.state in LIVE and stale else ""

    def _free(self, state: str) -> bool:
        """Whether a new run may begin: nothing is under way but, at most, loading ahead."""
        return state not in BUSY or (self._job is not None and self._job.warming)

    def _verbs(self, state: str, trace: Trace | None) -> frozenset[str]:
        verbs = set()
        if self._free(state) or state == "paused":
            verbs |= {"start", "step"}
        if state == "running":
            verbs |= {"pause"}
        if state in BUSY:
            verbs |= {"stop"}
        if trace is not None and self._kind.of(trace):
            verbs |= {"picture"}
        if self.history.can_undo:
            verbs |= {"undo"}
        if self.history.can_redo:
            verbs |= {"redo"}
        return frozenset(verbs)

    def _mark(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
