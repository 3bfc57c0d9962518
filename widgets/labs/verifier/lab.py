"""``VerifierLab``: what a notebook calls."""

from __future__ import annotations

from typing import Any

from widgets.labs.board_lab import BoardLab
from widgets.labs.verifier import controller
from workbench.core.trace import Trace


class VerifierLab(BoardLab):
    """Every verification rule on the same p and q, beside the optimum; and the auditor.

    Args:
        trace: a recorded run to take laws from; without one the lab opens on an example.
        settings: ``p``, ``q`` (2 to 5 numbers each) and ``labels``.

    Raises:
        BadInput: laws that are none.

    Example:
        >>> VerifierLab(p=[0.5, 0.3, 0.2], q=[0.1, 0.2, 0.7])  # doctest: +SKIP
    """

    def __init__(self, trace: Trace | None = None, **settings: Any):
        super().__init__(controller.VerifierLab(trace, **settings))
