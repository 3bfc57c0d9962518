"""The arena without its looks: a sweep under way, what passes cost, other hardware, a search.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from widgets.labs.arena import exports, form, pictures, plan, screen, work
from widgets.labs.arena.judged import leading
from widgets.labs.arena.recorded import recording
from widgets.labs.arena.results import Results, of_arena, of_folder
from widgets.labs.board import Cell, Section
from widgets.labs.history import History, Travels
from widgets.labs.worker import Status, Task, Worker
from workbench.bench.arena import ENDED, Arena
from workbench.bench.cost_model import CostReport
from workbench.bench.preset import Preset, read_preset
from workbench.core.errors import BadInput, WorkbenchError

LOOKS = frozenset({"show", "cell", "picture"})  # what is looked at: no step of undo
REFRESH_S = 0.2  # between two tables while measuring
PATIENCE = 10  # a table may take a tenth of the time at most


class ArenaLab(Travels):
    """State of one arena.

    Args:
        settings: first values of fields, e.g. ``drafters``, ``prompts`` or ``folder``.

    Raises:
        BadKnob: a value that its field does not take.
    """

    title = "Arena"
    buttons: Mapping[str, str] = MappingProxyType(
        {"start": "▶ Start", "pause": "❙❙ Pause", "stop": "■ Stop"}
    )
    knobs: Mapping[str, str] = MappingProxyType(
        {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset", "look": "Show folder",
         "export": "Export"}
    )  # fmt: skip
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("main", "plot", 320, 1.5), Cell("detail", "html", 320, 1.0, 320)),
        (Cell("left", "plot", 250, 1.0), Cell("right", "plot", 250, 1.0)),
        (Cell("table", "html", 150, 1.0, 360),),
    )
    accepts = ".json"
    opens = "Open a tuned preset"

    def __init__(self, **settings: Any):
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self.error = self.note = self.warning = self._holder = ""
        self._looking: dict[str, Any]
        self._planned: tuple[Any, str, str] = (None, "", "")
        self.arena: Arena | None = None
        self.results: Results | None = None  # of one's own
        self.report: CostReport | None = None
        self.trials: list[dict[str, Any]] = []
        self.preset: Preset | None = None
        self._made_s, self._shown_at = 0.0, 0.0
        self.worker = Worker(self._mark, self._failed)
        given = form.checked(settings)
        self._looking = {key: given.pop(key) for key in LOOKS & given.keys()}
        self.history = History(given)

    # ---- reading ---------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """Every field's value."""
        found = {**form.defaults(), **self.history.now, **self._looking}
        if found["cell"] not in self._cells():
            found["cell"] = ""
        return found

    @property
    def show(self) -> str:
        """Which of the four things is shown."""
        return self._looking.get("show", "arena")

    @property
    def sections(self) -> tuple[Section, ...]:
        return form.sections(self.settings, self._cells())

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        return screen.titles(self)

    def _cells(self) -> tuple[str, ...]:
        """Ids that can be looked at; the same while a sweep runs, so that the form stays."""
        if self.arena is not None and self.results is not None:
            return tuple(cell.id for cell in self.arena.sweep.cells)
        shown = self.shown
        return tuple(row["cell"] for row in shown.table) if shown else ()

    @property
    def shown(self) -> Results | None:
        """One's own results, else the recorded ones."""
        kept = recording()
        return self.results or (kept.results if kept else None)

    @property
    def chosen(self) -> str:
        """Id of the configuration in full: the one picked, else the fastest lossless draft."""
        return self.settings["cell"] or leading(self.shown.table if self.shown else [])

    @property
    def measuring(self) -> bool:
        """Whether a sweep of this lab runs or is paused."""
        return self.arena is not None and self.arena.state in ("running", "paused")

    @property
    def status(self) -> Status:
        if self.arena is None or not self.measuring:
            return self.worker.status
        return screen.status(self.arena)

    @property
    def waiting(self) -> str:
        """Who measures while this lab waits; empty = it does not wait."""
        return self._holder or (self.arena.waiting if self.arena is not None else "")

    def verbs(self) -> frozenset[str]:
        """What can be pressed now."""
        return screen.verbs(self)

    # ---- settings --------------------------------------------------------------------------------

    def change(self, key: str, value: Any) -> bool:
        """Change one setting; a bad value becomes a message and the old one stays."""
        with self._lock:
            fields = {f.key: f for s in self.sections for f in s.fields}
            try:
                if key not in fields:
                    raise BadInput(f"{key}={value!r}: no such setting of this lab")
                value = fields[key].check(value)
                if self.settings[key] != value:
                    self.error = self.note = ""
                    self._put(key, value)
            except WorkbenchError as error:
                self.error = str(error)
                self._mark()
                return False
        self._mark()
        return True

    def _put(self, key: str, value: Any) -> None:
        if key in LOOKS:
            self._looking[key] = value
        else:
            self.history.put(key, value)

    def _travelled(self) -> None:
        self.error = self.note = ""

    @property
    def planned(self) -> tuple[str, str]:
        """What the settings amount to, or what is wrong with them; worked out when they change."""
        key = (self.history.now, self.show, self.preset)
        if self._planned[0] != key:
            said = error = ""
            try:
                said = plan.told(self.show, self.settings, self._extra())
            except WorkbenchError as problem:
                error = str(problem)
            self._planned = (key, said, error)
        return self._planned[1], self._planned[2]

    def _extra(self) -> tuple:
        return (self.preset.cell,) if self.preset is not None else ()

    # ---- verbs, from any thread ------------------------------------------------------------------

    def start(self) -> None:
        """Measure what is shown; goes on where it was paused or where the folder ends."""
        with self._lock:
            if self.status.state == "paused":
                self.pause()
                return
            if self.status.state != "idle":
                return
            self.error = self.note = ""
            try:
                self._begin()
            except WorkbenchError as error:
                self.error = str(error)
        self._mark()

    def _begin(self) -> None:
        plan.told(self.show, self.settings, self._extra())  # what is wrong is said at once
        if self.show == "cost":
            self.worker.ask("cost", self._measure_cost)
        elif self.show == "tune":
            self.worker.ask("tune", self._tune)
        elif self.show == "arena":
            grid = plan.grid(self.settings, self._extra())
            made = Arena(grid, plan.folder(self.settings["folder"], grid), self._seen)
            self.arena, self.results = made, of_arena(made)
            made.start()

    def pause(self) -> None:
        """Pause what is under way, or go on."""
        if self.arena is not None and self.measuring:
            self.arena.start() if self.arena.state == "paused" else self.arena.pause()
        elif self.worker.status.state == "paused":
            self.worker.resume()
        else:
            self.worker.pause()
        self._mark()

    def stop(self) -> None:
        """End after the measurement under way; what there is is kept."""
        if self.arena is not None and self.measuring:
            self.arena.stop()
        self.worker.stop()

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Until nothing is under way; False if that took too long. For tests and notebooks."""
        end = time.monotonic() + timeout_s
        if self.arena is not None and self.measuring and not self.arena.wait(timeout_s):
            return False
        return self.worker.wait(max(0.0, end - time.monotonic()))

    def look(self) -> None:
        """Show what the named folder holds, without measuring."""
        self._try(self._look)

    def _look(self) -> None:
        if self.measuring:
            raise BadInput("a sweep is under way; stop it first")
        self.results, self.arena = of_folder(Path(self.settings["folder"]).expanduser()), None
        self.note = f"{self.results.done} of {self.results.total} measured in {self.results.folder}"

    def export(self) -> None:
        """Write tables and figures of what is shown into a folder."""
        self._try(self._export)

    def _export(self) -> None:
        files = exports.of(self)
        base = plan.BASE
        if self.show == "arena" and self.results is not None:
            base = self.results.folder
        at = exports.write(Path(base) / "export", files)
        self.note = f"wrote {', '.join(files)} into {at}"

    def open(self, data: bytes, name: str) -> bool:
        """Open a preset; it takes part in the arena from now on."""
        return self._try(lambda: self._open(data, name))

    def _open(self, data: bytes, name: str) -> None:
        self.preset = read_preset(data, f"preset={name!r}")
        self.warning = self.preset.warning()
        self.note = f"{name} takes part in the arena"
        self._looking["show"] = "tune"

    def _try(self, verb: Callable[[], None]) -> bool:
        with self._lock:
            self.error = self.note = ""
            try:
                verb()
            except WorkbenchError as error:
                self.error = str(error)
        self._mark()
        return not self.error

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A click on a bar shows its configuration in full."""
        data = event.get("customdata")
        if cell != "main" or self.show != "arena" or not isinstance(data, (int, float)):
            return
        order = pictures.ranking(self.shown, self.chosen)[1]
        if 0 <= int(data) < len(order):
            self.change("cell", order[int(data)])

    def listen(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.append(listener)

    def close(self) -> None:
        """Stop what runs and forget the listeners; a sweep keeps what it has."""
        self._listeners.clear()
        if self.arena is not None and self.arena.state not in ENDED:
            self.arena.stop()
        self.worker.close()

    # ---- from the threads that measure -----------------------------------------------------------

    def _seen(self, progress: Any) -> None:
        """A measurement was made: a new table now and then, and always at the end."""
        arena, now = self.arena, time.monotonic()
        if arena is None:
            return
        gap = max(REFRESH_S, PATIENCE * self._made_s)
        if arena.state != "running" or now - self._shown_at > gap:
            self.results = of_arena(arena)
            self._shown_at = time.monotonic()
            self._made_s = self._shown_at - now
        if arena.state == "failed":
            self.error = arena.error
        elif arena.state in ENDED:
            failed = f", {progress.failed} failed" if progress.failed else ""
            done = f"{progress.done} of {progress.total} measured"
            self.note = f"{done}{failed}, kept in {arena.sweep.journal.folder}"
        self._mark()

    def _measure_cost(self, task: Task) -> None:
        task.tell("Loading")
        told = task.timed("Passes, then drafts")
        with work.Shift(task, "the cost of a pass in another lab", self._waits) as turn:
            self.report = work.measured_cost(self.settings, told, turn)
        self._mark()

    def _tune(self, task: Task) -> None:
        task.tell("Loading")
        search = plan.search(self.settings)
        folder = plan.folder(self.settings["tune_folder"], search)
        with work.Shift(task, f"the search in {folder}", self._waits) as turn:
            found = work.tuned(search, folder, task, self._tried, turn)
        self.preset, self.warning = found, ""
        self.note = f"saved as {folder / 'preset.json'}; it takes part in the arena"
        self._mark()

    def _waits(self, holder: str) -> None:
        self._holder = holder
        self._mark()

    def _tried(self, trials: list[dict[str, Any]]) -> None:
        self.trials = trials

    def _failed(self, name: str, message: str) -> None:
        self.error = message
        self._mark()

    def _mark(self) -> None:
        for listener in list(self._listeners):
            listener()

    def contents(self) -> dict[str, Any]:
        """Everything that is shown."""
        return screen.contents(self)
