"""Which attention and MLP sub-layers of a model run in a pass; a skipped one is the identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """The sub-layers that run, by layer index.

    Example:
        >>> Span.first(2)
        Span(attention=frozenset({0, 1}), mlp=frozenset({0, 1}))
    """

    attention: frozenset[int]
    mlp: frozenset[int]

    @staticmethod
    def of(layers: Iterable[int]) -> Span:
        """Whole layers."""
        kept = frozenset(layers)
        return Span(kept, kept)

    @staticmethod
    def first(layers: int) -> Span:
        """The first ``layers`` layers: an early exit."""
        return Span.of(range(layers))

    @staticmethod
    def without(layer_count: int, attention: Iterable[int] = (), mlp: Iterable[int] = ()) -> Span:
        """All of ``layer_count`` layers but the named attention and MLP sub-layers."""
        every = frozenset(range(layer_count))
        return Span(every - frozenset(attention), every - frozenset(mlp))
