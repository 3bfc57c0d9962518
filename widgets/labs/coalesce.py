"""One UI-writer thread per lab: many marks, at most five flushes a second, the first at once.

*Idea*: drawing and decoding share one interpreter, so while something is busy a draw is paid for by
the run. The pace follows what a draw costs, so that drawing stays a small share of the time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

LOG = logging.getLogger(__name__)
INTERVAL_S = 0.2
SHARE = 0.03  # of the time, for drawing while something is busy
LONGEST_S = 0.5  # between two flushes, however dear they are


class Coalescer:
    """Turns ``mark()`` from any thread into calls of ``flush`` from one thread.

    Args:
        flush: draws the latest state; what it raises is logged, never lost, and drawing goes on.
        interval_s: shortest time between two flushes; the first after a pause is drawn at once.
        busy: whether something runs that drawing takes time from; only then dear flushes are
            further apart.
    """

    def __init__(
        self,
        flush: Callable[[], None],
        interval_s: float = INTERVAL_S,
        busy: Callable[[], bool] = lambda: False,
    ):
        self._flush, self._busy = flush, busy
        self._interval_s = interval_s
        self._spent_s = self._before_s = 0.0  # by the latest flush and the one before it
        self._marked = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lab-writer", daemon=True)
        self._thread.start()

    def mark(self) -> None:
        """Something changed; cheap, never blocks."""
        self._marked.set()

    def charge(self, spent_s: float) -> None:
        """Processor seconds that another thread spent for the latest flush; our own are known."""
        if threading.current_thread() is not self._thread:
            self._spent_s += spent_s

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
            started, began_s = time.monotonic(), time.thread_time()
            self._before_s, self._spent_s = self._spent_s, 0.0
            try:
                self._flush()
            except Exception:
                LOG.exception("the lab could not draw its latest state")
            self._spent_s += time.thread_time() - began_s
            self._rest(started)

    def _rest(self, started: float) -> None:
        """Wait for the next flush's time; looked at again meanwhile, as what was busy may end."""
        while not self._closed.is_set():
            pause_s = self._interval_s
            if self._busy():
                usual_s = min(self._spent_s, self._before_s)  # a single dear one is let through
                pause_s = max(pause_s, min(LONGEST_S, usual_s / SHARE))
            left_s = started + pause_s - time.monotonic()
            if left_s <= 0:
                return
            self._closed.wait(min(left_s, self._interval_s))
