"""Where the milliseconds of a round go."""

from __future__ import annotations

import time

from workbench.models.session import Session


class Stopwatch:
    """Milliseconds of a round by phase, and how many of them were spent inside forwards."""

    def __init__(self, target: Session, draft: Session | None):
        self._sessions = [s for s in (target, draft) if s is not None]
        self._target, self._draft = target, draft
        self._before = self._counts()
        for session in self._sessions:
            session.timings.clear()
        self.phases = dict.fromkeys(("draft", "verify", "commit", "other"), 0.0)
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to ``phase``."""
        moment = time.perf_counter()
        self.phases[phase] += (moment - self._last) * 1e3
        self._last = moment

    def charge(self, **phases_ms: float) -> None:
        """Account a stretch whose parts overlapped, in place of the time since the last lap."""
        for phase, spent_ms in phases_ms.items():
            self.phases[phase] += spent_ms
        self._last = time.perf_counter()

    @property
    def forwards(self) -> list[int]:
        """Forwards of the target and of the draft since the round began."""
        return [now - before for now, before in zip(self._counts(), self._before, strict=True)]

    def _counts(self) -> list[int]:
        """Full passes of the target; passes of the draft and through a part of the target."""
        draft = self._draft.forwards if self._draft is not None else 0
        return [self._target.forwards, draft + self._target.partial_forwards]

    def forward_ms(self) -> float:
        """Milliseconds inside model forwards (waits for the device); overlaps count once."""
        inside = sum(session.take_timings_ms() for session in self._sessions)
        return min(inside, sum(self.phases.values()))
