"""What the adapter, pruning and expert labs share: a model of their own, changed and measured.

*Idea*: the settings describe the whole change, and applying always starts from the untouched model.
So undo is going back one value, reset is bit-exact, and a saved setting is a saved state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from widgets.labs import frame
from widgets.labs.board import Cell, Section
from widgets.labs.decode.engine import held_out_prompts, shared_model
from widgets.labs.dials import CSS as DIALS_CSS
from widgets.labs.dials import dials_html
from widgets.labs.history import History, Travels
from widgets.labs.worker import Status, Task, Worker
from workbench.core.errors import BadInput, WorkbenchError
from workbench.engine.dials import Dials, Yardstick, measure_dials, yardstick
from workbench.models.load import check_pair, load
from workbench.models.model import Model

SPEED_PROMPTS = 2  # enough to see a change of speed, short enough to wait for
DIALS = Cell("dials", "html", 96, 1.0)


class Bench(Travels):
    """State of one bench; a subclass adds its forms, its pictures and what a setting does.

    A subclass gives ``title``, ``bands`` (with :data:`DIALS` last) and

    - ``forms() -> tuple[Section, ...]``: of the settings now (may depend on the loaded model);
    - ``prepared(task)``: once after loading, on the worker, the dials not measured yet;
    - ``apply(task)``: make the model what the settings say, from the untouched state, on the
      worker with the model's lock held;
    - ``cells() -> dict``: contents of its own cells; called often, from any thread, never slow.

    Args:
        model: name or folder of a checkpoint, or a loaded model. A name is loaded afresh, so that
            what is done to it here reaches no other lab.
        draft: name of the draft model, loaded once per process; empty = none.
    """

    title = ""
    buttons: Mapping[str, str] = MappingProxyType(
        {"measure": "▶ Measure", "pause": "❙❙ Pause", "stop": "■ Stop"}
    )
    knobs: Mapping[str, str] = MappingProxyType(
        {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset"}
    )
    bands: tuple[tuple[Cell, ...], ...] = ((DIALS,),)
    accepts = ""
    looks: frozenset[str] = frozenset()  # settings that choose what is looked at: no step of undo

    def __init__(self, model: str | Model = "zoo:target", draft: str | Model = "zoo:draft"):
        self._given, self._draft_given = model, draft
        self.model: Model | None = model if isinstance(model, Model) else None
        self.draft: Model | None = draft if isinstance(draft, Model) else None
        self.stick: Yardstick | None = None
        self.now: Dials | None = None
        self.before: Dials | None = None
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._error, self._note = "", ""
        self.history = History({})
        self._looking: dict[str, Any] = {}
        self.worker = Worker(self._mark, self._failed)

    # ---- for subclasses --------------------------------------------------------------------------

    def forms(self) -> tuple[Section, ...]:
        """The left column for the settings as they are."""
        return ()

    def prepared(self, task: Task) -> None:
        """The model is there: compute what the pictures need."""

    def apply(self, task: Task) -> None:
        """Make the model what the settings say."""

    def cells(self) -> dict[str, Any]:
        """Contents of the lab's own cells."""
        return {}

    @property
    def untouched(self) -> bool:
        """Whether what was applied leaves the model as it was; its reading is then the first."""
        return not self.history.now

    def restore(self) -> None:
        """Give a model that was handed in back as it was; called when the lab closes."""

    def texts(self) -> list[str]:
        """Held-out text that losses are measured on."""
        return list(held_out_prompts().values())

    def say(self, note: str) -> None:
        """One sentence below the dials."""
        self._note = note
        self._mark()

    def refuse(self, error: str) -> None:
        """A message in the left column."""
        self._error = error
        self._mark()

    # ---- reading ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._given if isinstance(self._given, str) else self._given.name

    @property
    def sections(self) -> tuple[Section, ...]:
        return self.forms()

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every field's value: what was set, else its default."""
        defaults = {f.key: f.knob.default for s in self.sections for f in s.fields}
        return {**defaults, **self.given}

    @property
    def given(self) -> Mapping[str, Any]:
        """What was set, of the model and of what is looked at."""
        return {**self._looking, **self.history.now}

    def value(self, key: str, default: Any = None) -> Any:
        """One setting, also where no form shows it (``default`` if it was never set)."""
        return self.given.get(key, default)

    @property
    def status(self) -> Status:
        return self.worker.status

    def contents(self) -> dict[str, Any]:
        """Everything that is shown."""
        status = self.status
        return {
            "head": frame.head_html(self.title, self._who()),
            "progress": frame.progress_html(status.line, status.fraction),
            "error": frame.error_html(self._error),
            "dials": f"<style>{DIALS_CSS}</style>"
            + dials_html(self.now, self.before, self._note or self._first_note()),
            **self.cells(),
        }

    def _first_note(self) -> str:
        return "" if self.before else "Measure loads the model and takes the first reading."

    def _who(self) -> str:
        if self.model is None:
            return self.name
        size = f"{self.model.parameters / 1e6:.1f} M"
        return f"{self.name} {size} {self.model.dtype} {self.model.device}"

    def verbs(self) -> frozenset[str]:
        """What can be pressed now."""
        found = {"reset", "measure"}
        found |= {"undo"} if self.history.can_undo else set()
        found |= {"redo"} if self.history.can_redo else set()
        found |= {"pause", "stop"} if self.status.state != "idle" else set()
        return frozenset(found)

    # ---- verbs, from any thread ------------------------------------------------------------------

    def warm(self) -> None:
        """Load and take the first reading in the background."""
        self.worker.ask("apply", self._apply)

    def measure(self) -> None:
        """Apply what is set and measure; goes on where it was paused."""
        if self.status.state == "paused":
            self.worker.resume()
        else:
            self.worker.ask("apply", self._apply)

    def pause(self) -> None:
        self.worker.resume() if self.status.state == "paused" else self.worker.pause()

    def stop(self) -> None:
        self.worker.stop()

    def change(self, key: str, value: Any) -> bool:
        """Change one setting; a bad value becomes a message and the old one stays."""
        with self._lock:
            fields = {f.key: f for s in self.sections for f in s.fields}
            try:
                if key not in fields:
                    raise BadInput(f"{key}={value!r}: no such setting of this lab")
                value, self._error = fields[key].check(value), ""
                changed = self.settings[key] != value and self.put(key, value)
            except WorkbenchError as error:
                self._error, changed = str(error), False
        if changed:
            self._note = self._note if key in self.looks else ""
            self.touched(key)
        self._mark()
        return not self._error

    def put(self, key: str, value: Any) -> bool:
        """Set a value without a form (a painted mask, a banned expert); one step of undo.

        A key of ``looks`` is kept aside: Undo, Redo and Reset leave it alone.
        """
        if key in self.looks:
            changed = self._looking.get(key) != value
            self._looking[key] = value
            return changed
        return self.history.put(key, value)

    def touched(self, key: str) -> None:
        """A setting changed: apply and measure once the model is there."""
        if self.model is not None:
            self.worker.ask("apply", self._apply)

    def _travelled(self) -> None:
        self._error = self._note = ""

    def _arrived(self) -> None:
        self.touched("")
        self._mark()

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """Something happened in a picture."""

    def open(self, data: bytes, name: str) -> bool:
        """A file was opened."""
        return False

    def listen(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.append(listener)

    def close(self) -> None:
        """Stop the thread, forget the listeners, give the model back."""
        self.worker.close()
        self._listeners.clear()
        if self.model is not None:
            self.restore()

    # ---- the worker ------------------------------------------------------------------------------

    def prepare(self, task: Task) -> None:
        """Load what is missing and take the first reading; the model is untouched here."""
        if self.model is None:
            task.tell(f"Loading {self.name}")
            self.model = load(self.name)
        if self.draft is None and self._draft_given:
            task.tell(f"Loading {self._draft_given}")
            self.draft = shared_model(str(self._draft_given))
        if self.draft is not None and self.stick is None:
            check_pair(self.model, self.draft)
        if self.stick is None:
            stick = self._yardstick(self.model)
            self.prepared(task)
            self.stick = stick  # last, so that what was stopped or refused is done again
        if self.before is None:
            self.before = self.now = self._measured(task)

    def _yardstick(self, model: Model) -> Yardstick:
        texts = self.texts()
        drafter = "draft_model" if self.draft is not None else "prompt_lookup"
        return yardstick(
            model, texts, prompts=tuple(texts[:SPEED_PROMPTS]), drafter=drafter, new_tokens=24
        )

    def _apply(self, task: Task) -> None:
        first = self.before is None
        self.prepare(task)
        assert self.model is not None  # prepared
        with self.model.lock:
            task.tell("Applying")
            try:
                self.apply(task)
            except WorkbenchError as error:  # said at once; the dials then tell what is left
                self.refuse(str(error))
        self._mark()
        if first and self.untouched:
            return
        self.now = self._measured(task)
        if self.untouched and not task.stopping:
            self.before = self.now

    def _measured(self, task: Task) -> Dials:
        assert self.model is not None and self.stick is not None  # prepared
        return measure_dials(
            self.model,
            self.stick,
            self.draft,
            cancelled=lambda: task.stopping,
            progress=lambda line, fraction: task.tell(line, fraction),
        )

    def _failed(self, name: str, message: str) -> None:
        self._error = message
        self._mark()

    def _mark(self) -> None:
        for listener in list(self._listeners):
            listener()
