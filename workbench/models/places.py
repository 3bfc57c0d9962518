"""Where in the text the rows of the pass under way are, for hooks inside the model.

A gate or a projection sees rows of numbers only; a session knows their positions and says so here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_POSITIONS: ContextVar[torch.Tensor | None] = ContextVar("positions", default=None)


@contextmanager
def at_positions(positions: torch.Tensor) -> Iterator[None]:
    """While inside, the rows of the pass are at ``positions [n]``."""
    token = _POSITIONS.set(positions)
    try:
        yield
    finally:
        _POSITIONS.reset(token)


def positions_now() -> torch.Tensor | None:
    """Positions of the rows of the pass under way; None outside a session."""
    return _POSITIONS.get()
