"""One UI-writer thread per lab: many marks, at most five flushes a second, the first at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

LOG = logging.getLogger(__name__)
INTERVAL_S = 0.2


class Coalescer:
    """Turns ``mark()`` from any thread into calls of ``flush`` from one thread.

    Args:
        flush: draws the latest state; what it raises is logged, never lost, and drawing goes on.
        interval_s: shortest time between two flushes; the first after a pause is drawn at once.
    """

    def __init__(self, flush: Callable[[], None], interval_s: float = INTERVAL_S):
        self._flush = flush
        self._interval_s = interval_s
        self._marked = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lab-writer", daemon=True)
        self._thread.start()

    def mark(self) -> None:
        """Something changed; cheap, never blocks."""
        self._marked.set()

    def close(self, wait_s: float = 2.0) -> None:
        """Stop the thread. What was marked and not drawn is dropped."""
        self._closed.set()
        self._marked.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(wait_s)

    def _work(self) -> None:
        while True:
            self._marked.wait()
            if self._closed.is_set():
                return
            self._marked.clear()
            started = time.monotonic()
            try:
                self._flush()
            except Exception:
                LOG.exception("the lab could not draw its latest state")
            self._closed.wait(max(0.0, self._interval_s - (time.monotonic() - started)))
