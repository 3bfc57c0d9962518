"""Draft, then verify, then draft again: the order that every other schedule is compared with."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.core.method import method
from workbench.core.trace import Round
from workbench.engine.decode import Decoding, decode


@method("schedule", title="One after the other", paper=None)
class Sequential:
    """One device works at a time: the draft waits for the target and the other way round.

    *Idea*: the loop of the engine as it is; nothing is ever drafted in vain for want of waiting.
    """

    def decode(self, run: Decoding, prompt: list[int]) -> Iterator[Round]:
        return decode(run, prompt)
