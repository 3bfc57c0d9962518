"""``ExpertLab``: what a notebook calls."""

from __future__ import annotations

from typing import Any

from widgets.labs.board_lab import BoardLab
from widgets.labs.experts import controller
from workbench.models.model import Model


class ExpertLab(BoardLab):
    """A mixture's routing of a text, token by layer; ban, force or re-weight experts by click.

    Args:
        model: a mixture of experts: name, folder, or a loaded model.
        settings: ``draft`` (a model, or "" for none) and ``text``.

    Example:
        >>> ExpertLab("zoo:moe")  # doctest: +SKIP
    """

    def __init__(self, model: str | Model = "zoo:moe", **settings: Any):
        super().__init__(controller.ExpertLab(model, **settings))
