"""A run in a worker thread with Start, Pause, Step and Stop; no UI in here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from workbench.core.errors import WorkbenchError
from workbench.core.trace import Trace
from workbench.engine.run import Run, RunSettings


@dataclass(frozen=True)
class Progress:
    """Tokens done of those asked for, and seconds left at the speed so far (None = unknown)."""

    done: int
    total: int
    eta_s: float | None


class LiveRun:
    """Drives one :class:`Run` from a worker thread.

    States: idle, running, paused, stopped, finished, failed. ``stop`` keeps everything generated so
    far; ``error`` holds the message of a failed run. ``listener`` is called after every round and
    every change of state, from the worker or from whoever caused it; it must be quick, and what it
    raises is logged and does not touch the run.
    """

    def __init__(self, settings: RunSettings, listener: Callable[[], None] | None = None):
        self._stop = threading.Event()
        self._run = Run(settings, cancelled=self._stop.is_set)
        self._listen = listener or (lambda: None)
        self._condition, self._reading = threading.Condition(), threading.Lock()
        self._read: tuple[tuple[int, str], Trace] | None = None  # the last trace and when it was
        self._permits = 0  # rounds that may start; -1 = no limit
        self._thread: threading.Thread | None = None
        self._state, self._error = "idle", None
        self._busy_s = 0.0
        self._count = self._rounds = 0

    @property
    def state(self) -> str:
        return self._state

    @property
    def error(self) -> str | None:
        return self._error

    @property
    def trace(self) -> Trace:
        """A consistent snapshot; safe from any thread at any time, and never waited for by the run.

        The same object until the run has moved on, so that a reader can ask as often as it likes.
        """
        with self._reading:
            moment = (self._rounds, self._run.finish)
            if self._read is None or self._read[0] != moment:
                self._read = (moment, self._run.trace())
            return self._read[1]

    @property
    def progress(self) -> Progress:
        total = self._run.decoding.max_new_tokens
        done = self._count
        left = None
        if done and self._state in ("running", "paused"):
            left = self._busy_s / done * (total - done)
        return Progress(done, total, 0.0 if self._state == "finished" else left)

    def _listener(self) -> None:
        try:
            self._listen()
        except Exception:  # a broken picture must not end the run behind it
            logging.getLogger(__name__).exception("the listener of a live run failed")

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._grant(-1)

    def step(self) -> None:
        """Run exactly one more round, then pause."""
        self._grant(1)

    def pause(self) -> None:
        """Finish the round under way, then wait."""
        with self._condition:
            self._permits = 0
            if self._state == "running":
                self._state = "paused"
        self._listener()

    def stop(self, wait_s: float = 0.0) -> None:
        """End the run, keeping what was generated; takes effect between draft and verify."""
        self._stop.set()
        with self._condition:
            if self._state == "idle":
                self._state = self._run.finish = "stopped"
            self._condition.notify_all()
        if wait_s:
            self.wait(wait_s)
        self._listener()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the worker to end; whether it did."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return self._state in ("stopped", "finished", "failed")

    def _grant(self, permits: int) -> None:
        with self._condition:
            if self._state in ("stopped", "finished", "failed"):
                return
            self._permits = permits
            self._state = "running"
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="live-run")
                self._thread.start()
            self._condition.notify_all()
        self._listener()

    def _may_go_on(self) -> bool:
        with self._condition:
            while self._permits == 0 and not self._stop.is_set():
                if self._state == "running":
                    self._state = "paused"
                self._condition.notify_all()
                self._condition.wait()
            if self._permits > 0:
                self._permits -= 1
            return not self._stop.is_set()

    def _work(self) -> None:
        try:
            steps = self._run.rounds()
            while self._may_go_on():
                began = time.perf_counter()
                done = next(steps, None)
                self._busy_s += time.perf_counter() - began
                if done is None:
                    break
                self._count += len(done.emitted)
                self._rounds += 1
                if self._run.finish:
                    break
                with self._condition:
                    if self._permits == 0 and self._state == "running":
                        self._state = "paused"
                self._listener()
            steps.close()
            stopped = self._stop.is_set() and self._run.finish in ("", "stopped")
            self._end("stopped" if stopped else "finished")
        except WorkbenchError as error:
            self._end("failed", str(error))
        except Exception as error:  # the lab shows it; nothing may kill the worker silently
            self._end("failed", f"{type(error).__name__}: {error} (this is a bug of the workbench)")
        self._listener()

    def _end(self, state: str, error: str | None = None) -> None:
        with self._condition:
            self._error, self._state = error, state
            if state == "stopped":
                self._run.finish = "stopped"
