"""``Arena``: what a notebook calls."""

from __future__ import annotations

from typing import Any

from widgets.labs.arena import controller
from widgets.labs.board_lab import BoardLab


class Arena(BoardLab):
    """Methods against each other on your machine; what passes cost; other hardware; tuning.

    Args:
        settings: first values of the form, e.g. ``drafters=("rest",)``, ``prompts="zoo"``,
            ``folder="runs/first"`` or ``show="cost"``.

    Raises:
        BadKnob, BadInput: a setting that is not there, or a value that it does not take.

    Example:
        >>> Arena(temperatures="0, 0.8")  # doctest: +SKIP
    """

    def __init__(self, **settings: Any):
        super().__init__(controller.ArenaLab(**settings))
