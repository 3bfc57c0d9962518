"""Where in the text the rows of the pass under way are, for hooks inside the model.

A gate or a projection sees rows of numbers only; a session knows their positions, and which earlier
passes took them up to where this one begins, and says so here.
"""

from __future__ import annotations

from contextvars import ContextVar

import torch

from workbench.models.rows import Rows


class PassOf:
    """While inside, ``rows`` are being scored; ``front`` slots come before the text.

    A pass that begins half-way up the layers has ``climbed``: the rows of the passes that took the
    same tokens there, in order. Rows are one object for the whole pass, and never those of another.
    """

    def __init__(self, rows: Rows, front: int, climbed: tuple[Rows, ...] = ()):
        self.rows, self.front, self.climbed = rows, front, climbed

    def __enter__(self) -> None:
        self._token = _UNDER_WAY.set(self)

    def __exit__(self, *problem: object) -> None:
        _UNDER_WAY.reset(self._token)


_UNDER_WAY: ContextVar[PassOf | None] = ContextVar("pass", default=None)


def pass_now() -> PassOf | None:
    """The pass of a session that is under way; None outside one."""
    return _UNDER_WAY.get()


def positions_now() -> torch.Tensor | None:
    """Positions ``[n]`` of the rows of the pass under way; None outside a session."""
    under_way = _UNDER_WAY.get()
    return None if under_way is None else under_way.rows.positions - under_way.front
