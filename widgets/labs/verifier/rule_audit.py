"""The enumerated audit of a rule, made a moment after the laws came to rest.

*Idea*: enumerating every draft takes a second or more, a dragged bar moves ten times in one. So a
lab keeps showing the last audit, marked as such, until the one of its laws is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from workbench.bench.audit import Audit

REST_S = 0.35


class RuleAudit:
    """The newest audit.

    Args:
        changed: called from another thread when a new audit can be shown.
    """

    def __init__(self, changed: Callable[[], None]):
        self._changed = changed
        self._lock = threading.Lock()
        self._found: dict[Hashable, Audit] = {}
        self._last: Audit | None = None
        self._wanted: Hashable = None
        self._timer: threading.Timer | None = None

    def now(self, key: Hashable, make: Callable[[], Audit]) -> Audit:
        """The audit of ``key``, waited for."""
        with self._lock:
            found = self._found.get(key)
        return found or self._keep(key, make())

    def shown(self, key: Hashable, make: Callable[[], Audit]) -> tuple[Audit, bool]:
        """An audit to show at once, and whether it is that of ``key``; if not, that one is begun.

        The very first is waited for, as a page without a kernel keeps what it got.
        """
        with self._lock:
            found, last = self._found.get(key), self._last
        if found is None and last is None:
            return self.now(key, make), True
        if found is None and last is not None:
            self._begin(key, make)
            return last, False
        assert found is not None
        self._last, self._wanted = found, key
        return found, True

    def _keep(self, key: Hashable, found: Audit) -> Audit:
        with self._lock:
            if len(self._found) > 100:
                self._found.clear()
            self._found[key] = self._last = found
        return found

    def _begin(self, key: Hashable, make: Callable[[], Audit]) -> None:
        with self._lock:
            if self._wanted == key and self._timer is not None and self._timer.is_alive():
                return
            if self._timer is not None:
                self._timer.cancel()
            self._wanted = key
            self._timer = threading.Timer(REST_S, self._work, (key, make))
            self._timer.daemon = True
            self._timer.start()

    def _work(self, key: Hashable, make: Callable[[], Audit]) -> None:
        self._keep(key, make())
        self._changed()

    def wait(self, timeout_s: float = 30.0) -> None:
        """Until what was begun is done."""
        if self._timer is not None:
            self._timer.join(timeout_s)

    def close(self) -> None:
        """Forget what was begun."""
        if self._timer is not None:
            self._timer.cancel()
