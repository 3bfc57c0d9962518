"""``AdapterLab``: what a notebook calls."""

from __future__ import annotations

from typing import Any

from widgets.labs.adapters import controller
from widgets.labs.board_lab import BoardLab
from workbench.models.model import Model


class AdapterLab(BoardLab):
    """Train, weigh, compare and combine adapters, and see what they do to the draft's acceptance.

    Args:
        model: to adapt: name, folder, or a loaded model.
        settings: ``draft`` (a model, or "" for none) and ``measure_steps``.

    Example:
        >>> AdapterLab("zoo:target")  # doctest: +SKIP
    """

    def __init__(self, model: str | Model = "zoo:target", **settings: Any):
        super().__init__(controller.AdapterLab(model, **settings))
