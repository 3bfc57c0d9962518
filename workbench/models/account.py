"""What a session has spent: passes and the time inside them."""

from __future__ import annotations

from workbench.core.clock import elapsed_ms


class Account:
    """Counts passes through a model and keeps the marks of their time.

    ``forwards`` are passes through all layers, ``partial_forwards`` through a part of them;
    ``timings`` holds the marks of passes whose time nobody has taken yet.
    """

    def __init__(self) -> None:
        self.forwards = 0
        self.partial_forwards = 0
        self.timings: list[tuple] = []

    def take_timings_ms(self) -> float:
        """Milliseconds inside forwards since the last call."""
        total = sum(elapsed_ms(*marks) for marks in self.timings)
        self.timings.clear()
        return total

    def charge_for(self, other: Account, *, partial: bool = False) -> None:
        """Account the passes of another session (a method's own) as this one's.

        With ``partial`` they count as passes through a part of this model: those of a copy of it
        that some weights or layers were taken from.
        """
        if partial:
            self.partial_forwards += other.forwards
        else:
            self.forwards += other.forwards
        self.partial_forwards += other.partial_forwards
        self.timings += other.timings
        other.forwards = other.partial_forwards = 0
        other.timings = []
