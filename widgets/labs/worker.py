"""One background thread of a lab: it loads, applies, measures and trains, one thing at a time.

*Idea*: a slider that is dragged asks forty times for "measure what is set now". Asks have a name;
a newer ask of the same name takes the place of an older one, waiting or under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from workbench.core.errors import WorkbenchError


class Status(NamedTuple):
    """``state`` is idle, busy or paused; ``fraction`` None = under way with no end known."""

    state: str = "idle"
    line: str = ""
    fraction: float | None = 0.0


class Stopped(Exception):
    """The task was told to stop; raised inside it by :meth:`Task.check`."""


class Task:
    """What a piece of work sees of its worker.

    Args:
        name: of the ask.
        tell: receives line and fraction.
    """

    def __init__(self, name: str, tell: Callable[[str, float | None], None]):
        self.name, self._tell = name, tell
        self._stop, self._go = threading.Event(), threading.Event()
        self._go.set()
        self.superseded = False
        self.resting: Callable[[], None] = lambda: None  # called when a pause begins

    def tell(self, line: str, fraction: float | None = None) -> None:
        """Say what is being done; also a point where the task may be paused or stopped."""
        self._tell(line, fraction)
        self.check()

    def timed(self, line: str) -> Callable[[float], None]:
        """A progress function that adds the time left, estimated from what is done."""
        began = time.monotonic()

        def progress(fraction: float) -> None:
            spent = time.monotonic() - began
            left = spent / fraction - spent if fraction > 0 else 0.0
            self.tell(f"{line} · {left:.0f} s left" if spent > 2 else line, fraction)

        return progress

    def check(self) -> None:
        """Wait while paused; raise :class:`Stopped` once stopped."""
        if not self._go.is_set():
            self.resting()
        while not self._go.wait(0.1):
            if self._stop.is_set():
                break
        if self._stop.is_set():
            raise Stopped

    @property
    def stopping(self) -> bool:
        """Whether to end at the next good moment (for loops that keep a partial result)."""
        return self._stop.is_set()

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def stop(self) -> None:
        self._stop.set()
        self._go.set()

    @property
    def paused(self) -> bool:
        return not self._go.is_set()


class Worker:
    """Runs the latest ask of every name, in the order of first asking.

    Args:
        changed: called whenever the status changes or a task ends, from any thread.
        failed: receives (name, message) of a task that raised.
    """

    def __init__(self, changed: Callable[[], None], failed: Callable[[str, str], None]):
        self._changed, self._failed = changed, failed
        self._condition = threading.Condition()
        self._waiting: dict[str, Callable[[Task], None]] = {}
        self._task: Task | None = None
        self._line: tuple[str, float | None] = ("", 0.0)
        self._closed = False
        self._thread: threading.Thread | None = None

    # ---- asking ----------------------------------------------------------------------------------

    def ask(self, name: str, work: Callable[[Task], None]) -> None:
        """Do ``work`` soon, instead of whatever was asked under this name before."""
        with self._condition:
            if self._closed:
                return
            self._waiting[name] = work
            if self._task is not None and self._task.name == name:
                self._task.superseded = True
                self._task.stop()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, daemon=True, name="lab-worker")
                self._thread.start()
            self._condition.notify_all()
        self._changed()

    def running(self, name: str) -> bool:
        """Whether a task of this name waits or is under way."""
        with self._condition:
            return name in self._waiting or (self._task is not None and self._task.name == name)

    @property
    def status(self) -> Status:
        with self._condition:
            if self._task is None:
                return Status("busy", "", None) if self._waiting else Status()
            line, fraction = self._line
            state = "paused" if self._task.paused else "busy"
            return Status(state, f"{line} · paused" if state == "paused" else line, fraction)

    # ---- verbs -----------------------------------------------------------------------------------

    def pause(self) -> None:
        self._each(lambda task: task.pause())

    def resume(self) -> None:
        self._each(lambda task: task.resume())

    def stop(self) -> None:
        """Drop what waits and stop what is under way; it keeps what it has so far."""
        with self._condition:
            self._waiting.clear()
        self._each(lambda task: task.stop())

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Until nothing waits or runs; False if that took too long. For tests and notebooks."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._task is None and not self._waiting, timeout_s
            )

    def close(self, wait_s: float = 2.0) -> None:
        """Stop, and end the thread."""
        with self._condition:
            self._closed = True
        self.stop()
        with self._condition:
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(wait_s)

    def _each(self, verb: Callable[[Task], None]) -> None:
        with self._condition:
            if self._task is not None:
                verb(self._task)
        self._changed()

    # ---- the thread ------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                name = next(iter(self._waiting))
                work = self._waiting.pop(name)
                self._task, self._line = Task(name, self._say), ("", None)
            self._changed()
            self._do(self._task, work)
            with self._condition:
                self._task = None
                self._condition.notify_all()
            self._changed()

    def _do(self, task: Task, work: Callable[[Task], None]) -> None:
        try:
            work(task)
        except Stopped:
            pass
        except WorkbenchError as error:
            self._failed(task.name, str(error))
        except Exception as error:  # the lab shows it; nothing may kill the thread silently
            self._failed(task.name, f"{type(error).__name__}: {error} (a bug of the workbench)")

    def _say(self, line: str, fraction: float | None) -> None:
        self._line = (line, fraction)
        self._changed()
