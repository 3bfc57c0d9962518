"""Where the milliseconds of a round go."""

from __future__ import annotations

import time

from workbench.models.session import Session


class Stopwatch:
    """Milliseconds of a round by phase, and how many of them were spent inside forwards."""

    def __init__(self, target: Session, draft: Session | None):
        self._sessions = [s for s in (target, draft) if s is not None]
        self._before = [s.forwards for s in self._sessions]
        for session in self._sessions:
            session.timings.clear()
        self.phases = dict.fromkeys(("draft", "verify", "commit", "other"), 0.0)
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to ``phase``."""
        moment = time.perf_counter()
        self.phases[phase] += (moment - self._last) * 1e3
        self._last = moment

    @property
    def forwards(self) -> list[int]:
        """Forwards of the target and of the draft since the round began."""
        counts = [s.forwards - b for s, b in zip(self._sessions, self._before, strict=True)]
        return [*counts, 0][:2]

    def forward_ms(self) -> float:
        """Milliseconds inside model forwards (waits for the device)."""
        return sum(session.take_timings_ms() for session in self._sessions)
