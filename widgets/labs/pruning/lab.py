"""``PruningLab``: what a notebook calls."""

from __future__ import annotations

from typing import Any

from widgets.labs.board_lab import BoardLab
from widgets.labs.pruning import controller


class PruningLab(BoardLab):
    """Masks painted and computed, and what they do to loss, speed, acceptance and bytes.

    Args:
        model: name or folder of a checkpoint, or a loaded model; a loaded one is given back as it
            was when the lab closes.
        draft: model that drafts for the dials; empty = none.
        settings: ``mask`` to begin with.

    Example:
        >>> PruningLab("zoo:target")  # doctest: +SKIP
    """

    def __init__(self, model: Any = "zoo:target", draft: Any = "zoo:draft", **settings: Any):
        super().__init__(controller.PruningLab(model, draft, **settings))
