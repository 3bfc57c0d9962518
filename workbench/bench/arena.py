"""``workbench bench arena``: targets, drafters, rules and lengths against each other, honestly.

*Idea*: everything that is compared runs interleaved with plain decoding on the same prompts and
seeds; what cannot run is listed with its reason, what failed with its error; the four acceptances
stand under their own names. :class:`Arena` is the same for whoever shows it: start, pause and stop
between measurements, results readable at any time.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.bench import summary
from workbench.bench.grid import Grid
from workbench.bench.sweep import Sweep, SweepProgress
from workbench.bench.turn import Turn, words
from workbench.core.errors import WorkbenchError

ENDED = ("stopped", "finished", "failed")


class Arena:
    """A sweep in a thread of its own.

    States: idle, running, paused, stopped, finished, failed (``error`` says why). While another
    measurement of this machine is under way, it waits for its end; ``waiting`` says for whom.
    A pause lets others measure. ``listener``
    hears every progress and every change of state, from the thread that caused it; it must be
    quick, and what it raises is logged and does not touch the sweep.

    Args:
        options: of :class:`workbench.bench.sweep.Sweep`.

    Raises:
        BadInput: a folder of another grid, or in use.
    """

    def __init__(
        self,
        grid: Grid,
        folder: str | Path,
        listener: Callable[[SweepProgress], None] | None = None,
        **options: Any,
    ):
        self.sweep = Sweep(grid, folder, **options)
        self.state, self.error, self.waiting = "idle", "", ""
        self._turn = Turn(f"the sweep in {self.sweep.journal.folder}")
        self._listen = listener or (lambda progress: None)
        self._progress = self.sweep.progress()
        self._go, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # ---- reading ---------------------------------------------------------------------------------

    @property
    def progress(self) -> SweepProgress:
        return self._progress

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop and the measurement under way has not ended yet."""
        return self._stop.is_set() and self.state not in ENDED

    def results(self) -> list[dict[str, Any]]:
        """Every finished measurement so far, with its ratios to plain decoding."""
        return summary.paired(self.sweep.records, self._cells())

    def table(self) -> list[dict[str, Any]]:
        """One row a cell, of what there is so far."""
        labels = {cell.id: cell.label for cell in self.sweep.cells}
        return summary.summarise(self.sweep.records, self._cells(), labels)

    def report(self) -> dict[str, Any]:
        """Everything that a reader of the numbers has to know, ready for JSON."""
        manifest, progress = self.sweep.journal.manifest, self.progress
        again = sum(r["state"] == "again" for r in self.sweep.records)
        return {
            "folder": str(self.sweep.journal.folder),
            "state": self.state,
            "done": progress.done,
            "total": progress.total,
            "failed": progress.failed,
            "prompts": manifest["grid"]["prompts"],
            "skipped_lines": list(self.sweep.grid.prompts.skipped),
            "repeats": manifest["grid"]["repeats"],
            "setting": manifest["grid"]["setting"],
            "sessions": manifest["sessions"],
            "plain_measured_again": again,
            "torn_bytes": self.sweep.journal.torn_bytes,
            "refused": [vars(refusal) for refusal in self.sweep.refusals],
            "table": self.table(),
        }

    def _cells(self) -> dict[str, dict[str, Any]]:
        return {cell.id: cell.to_json() for cell in self.sweep.cells}

    # ---- verbs -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on after a pause."""
        if self.state in ENDED:
            return
        self.state = "running"
        self._go.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="arena")
            self._thread.start()
        self._tell(self._progress)

    def pause(self) -> None:
        """Finish the measurement under way, then wait."""
        if self.state == "running":
            self.state = "paused"
            self._go.clear()
            self._tell(self._progress)

    def stop(self, wait_s: float = 0.0) -> None:
        """End after the measurement under way; a later arena on the folder goes on from there."""
        self._stop.set()
        self._go.set()
        if self._thread is None and self.state == "idle":
            self._end("stopped")
        if self.stopping:
            self._tell(self._progress)
        if wait_s:
            self.wait(wait_s)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return self.state in ENDED

    def run(self) -> None:
        """To the end in this thread; an interrupt stops it and keeps what there is.

        Raises:
            WorkbenchError: what ended it, e.g. a full disk.
        """
        self.state = "running"
        self._go.set()
        try:
            self._measure()
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self._end("stopped" if interrupted else "failed", str(error))
            raise

    # ---- the thread ------------------------------------------------------------------------------

    def _measure(self) -> None:
        steps = self.sweep.steps()
        while not self._stop.is_set():
            if not self._go.is_set():
                self._turn.leave()
                self._go.wait()
            if not self._has_turn():
                continue
            seen = next(steps, None)
            if seen is None:
                self._finish()
                self._end("finished")
                return
            self._progress = seen
            self._tell(seen)
        steps.close()
        self._end("stopped")

    def _has_turn(self) -> bool:
        """Whether it may measure; False where it was paused or stopped before its turn came."""
        if self._stop.is_set():
            return False
        came = self._turn.wait(self._waits, lambda s: self._stop.wait(s) or not self._go.is_set())
        if self.waiting:
            self.waiting = ""
            self._tell(self._progress)
        return came

    def _waits(self, holder: str) -> None:
        self.waiting = holder
        self._tell(dataclasses.replace(self._progress, line=words(holder)))

    def _finish(self) -> None:
        """Write the table of measurements and its summary beside the lines."""
        data = summary.to_parquet_bytes(self.sweep.records, self._cells())
        self.sweep.journal.write("measurements.parquet", data)
        told = {**self.report(), "state": "finished"}
        self.sweep.journal.write("summary.json", json.dumps(told, indent=1).encode())

    def _work(self) -> None:
        try:
            self._measure()
        except WorkbenchError as error:
            self._end("failed", str(error))
        except Exception as error:  # the lab shows it; nothing may kill the thread silently
            self._end("failed", f"{type(error).__name__}: {error} (this is a bug of the workbench)")

    def _end(self, state: str, error: str = "") -> None:
        self._turn.leave()
        self.error, self.state = error, state
        self._progress = self.sweep.progress(error or self._progress.line)
        self.sweep.close()
        self._tell(self._progress)

    def _tell(self, progress: SweepProgress) -> None:
        try:
            self._listen(progress)
        except Exception:  # a broken picture must not end the sweep behind it
            logging.getLogger(__name__).exception("the listener of an arena failed")
