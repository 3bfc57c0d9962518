"""A copy of the target that a drafter may change: pruned, adapted, cut, and drafted with."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable

import torch

from workbench.models.model import Model

_KEPT = 2  # changed copies of one model that are kept for the next run
_MADE: weakref.WeakKeyDictionary[Model, dict[Hashable, tuple[Model, float]]] = (
    weakref.WeakKeyDictionary()
)


class Twin:
    """Makes changed copies of the target; the newest are kept while its weights stay as they are.

    Args:
        source: the target; it is never changed.
    """

    def __init__(self, source: Model):
        self.source = source

    def __deepcopy__(self, memo: dict) -> Twin:
        """Itself, as with models."""
        return self

    def changed(
        self, key: Hashable, change: Callable[[Model], tuple[Model, float]]
    ) -> tuple[Model, float]:
        """What ``change`` makes of a copy, or made of one before.

        Args:
            key: everything besides the weights that the outcome depends on.
            change: copy -> (the copy, or a smaller one made of it; share of weights left).
        """
        kept = _MADE.setdefault(self.source, {})
        full = (key, _mark(self.source))
        if full not in kept:
            made = change(self.source.clone())
            for old in list(kept)[: max(0, len(kept) + 1 - _KEPT)]:
                del kept[old]
            kept[full] = made
        return kept[full]


@torch.no_grad()
def _mark(model: Model) -> tuple[float, ...]:
    """Sums that change with the weights; an equal sum of other weights could only cost speed."""
    return tuple(
        value
        for weight in model.network.parameters()
        for value in (float(weight.sum()), float(weight.norm()))
    )
