"""Undo and redo of a lab's settings: a list of frozen values, a cursor, and the verbs for it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

MERGE_S = 0.7  # a slider drag is one step back, not forty
DEPTH = 200


class History:
    """Settings now, before and after.

    Args:
        first: the settings that ``reset`` goes back to.
        clock: seconds; changes of one key closer than ``MERGE_S`` count as one.
    """

    def __init__(self, first: Mapping[str, Any], clock=time.monotonic):
        self._first = MappingProxyType(dict(first))
        self._past: list[Mapping[str, Any]] = []
        self._future: list[Mapping[str, Any]] = []
        self._now = self._first
        self._clock = clock
        self._last: tuple[str, float] = ("", 0.0)

    @property
    def now(self) -> Mapping[str, Any]:
        return self._now

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def put(self, key: str, value: Any) -> bool:
        """Change one setting; False if it already has that value."""
        if key in self._now and self._now[key] == value:
            return False
        when = self._clock()
        merge = self._last[0] == key and when - self._last[1] < MERGE_S and self._past
        self._last = (key, when)
        self._go({**self._now, key: value}, keep=not merge)
        return True

    def replace(self, settings: Mapping[str, Any]) -> None:
        """Change many settings in one undoable step."""
        if dict(settings) != dict(self._now):
            self._last = ("", 0.0)
            self._go(settings, keep=True)

    def reset(self) -> None:
        """Back to the first settings; itself undoable."""
        self.replace(self._first)

    def undo(self) -> bool:
        return self._move(self._past, self._future)

    def redo(self) -> bool:
        return self._move(self._future, self._past)

    def _go(self, settings: Mapping[str, Any], keep: bool) -> None:
        if keep:
            self._past = [*self._past, self._now][-DEPTH:]
        self._future = []
        self._now = MappingProxyType(dict(settings))

    def _move(self, source: list, target: list) -> bool:
        if not source:
            return False
        target.append(self._now)
        self._now = source.pop()
        self._last = ("", 0.0)
        return True


class Travels(ABC):
    """The verbs of a controller that has a ``history`` and a ``_lock``."""

    history: History
    _lock: threading.RLock

    def undo(self) -> None:
        self._travel(self.history.undo)

    def redo(self) -> None:
        self._travel(self.history.redo)

    def reset(self) -> None:
        self._travel(self.history.reset)

    def _travel(self, step: Callable[[], Any]) -> None:
        with self._lock:
            step()
            self._travelled()
        self._arrived()

    @abstractmethod
    def _travelled(self) -> None:
        """Messages about the settings before no longer hold; called with the lock."""

    def _arrived(self) -> None:
        """Other settings are in force."""
        self._mark()

    @abstractmethod
    def _mark(self) -> None:
        """Tell those who listen."""
