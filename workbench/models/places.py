"""Where in the text the rows of the pass under way are, for hooks inside the model.

A gate or a projection sees rows of numbers only; a session knows their positions and says so here.
"""

from __future__ import annotations

from contextvars import ContextVar

import torch

from workbench.models.rows import Rows

_UNDER_WAY: ContextVar[tuple[Rows, int] | None] = ContextVar("rows", default=None)


class PassOf:
    """While inside, ``rows`` are being scored; ``front`` slots come before the text."""

    def __init__(self, rows: Rows, front: int):
        self._said = rows, front

    def __enter__(self) -> None:
        self._token = _UNDER_WAY.set(self._said)

    def __exit__(self, *problem: object) -> None:
        _UNDER_WAY.reset(self._token)


def positions_now() -> torch.Tensor | None:
    """Positions ``[n]`` of the rows of the pass under way; None outside a session."""
    said = _UNDER_WAY.get()
    return None if said is None else said[0].positions - said[1]
