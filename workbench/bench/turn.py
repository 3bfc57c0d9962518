"""One measurement at a time on a machine: whoever measures has the turn, the others wait.

*Idea*: two measurements side by side slow each other down, and nobody would see it in the numbers.
The turn is a lock of the operating system on one file, so it holds between threads and between
processes, and a process that is killed gives it back however it ends.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.2  # between two looks whether the turn is free
NAMED = "WORKBENCH_TURN"  # variable of the environment: another file, e.g. for a container
SOMEBODY = "another measurement"
WAITING = "waiting for "


def words(holder: str) -> str:
    """What is said while waiting."""
    return f"{WAITING}{holder}; one measures at a time, or both would be slowed"


_here: dict[Path, Turn] = {}  # file -> who has it in this process
_guard = threading.Lock()


def turn_file() -> Path:
    """One a user and machine; the machine is named because homes are shared over networks."""
    if os.environ.get(NAMED):
        return Path(os.environ[NAMED])
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "draft-workbench" / f"measuring-{platform.node()}"


class Turn:
    """The right to measure on this machine.

    Where the file cannot be written, or the system has no such locks (Windows), the turn holds
    between the threads of one process only.

    Args:
        what: what those who wait are told, e.g. ``the sweep in runs/a``.
    """

    def __init__(self, what: str):
        self.what, self.file = what, turn_file()
        self._held: int | None = None

    def taken(self) -> bool:
        """Take it if nobody has it; whether it is had now."""
        with _guard:
            if _here.get(self.file) is self:
                return True
            if self.file in _here or not self._locked():
                return False
            _here[self.file] = self
            return True

    def holder(self) -> str:
        """Who has it, in words; empty = nobody, or this one."""
        with _guard:
            other = _here.get(self.file)
        if other is not None:
            return "" if other is self else other.what
        try:
            return self.file.read_text(encoding="utf-8", errors="replace").strip() or SOMEBODY
        except OSError:
            return SOMEBODY

    def leave(self) -> None:
        """Let others measure; nothing happens where it is not had."""
        with _guard:
            if _here.get(self.file) is not self:
                return
            del _here[self.file]
            if self._held is not None:
                os.ftruncate(self._held, 0)
                os.close(self._held)
                self._held = None

    def wait(self, told: Callable[[str], None], stopped: Callable[[float], object]) -> bool:
        """Until it is had; False where ``stopped(seconds)``, which sleeps so long, says so.

        Args:
            told: hears who has it, whenever that is somebody else than before.
        """
        before = ""
        while not self.taken():
            now = self.holder() or SOMEBODY
            if now != before:
                told(now)
                before = now
            if stopped(POLL_S):
                return False
        return True

    def _locked(self) -> bool:
        """Whether no other process has the file; this one has it from now on."""
        try:
            import fcntl
        except ImportError:
            return True
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return False
        self._held = held
        self._sign(held)
        return True

    def _sign(self, held: int) -> None:
        """Say in the file who has it; a full disk keeps nobody from measuring."""
        try:
            os.ftruncate(held, 0)
            os.pwrite(held, f"{self.what}, process {os.getpid()}\n".encode(), 0)
        except OSError:
            pass


@contextmanager
def turn_of(what: str) -> Iterator[None]:
    """Have the turn inside; who has it meanwhile is told on standard error."""
    turn = Turn(what)
    try:
        turn.wait(lambda holder: print(words(holder), file=sys.stderr), time.sleep)
        yield
    finally:
        turn.leave()
