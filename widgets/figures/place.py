"""Where in a trace a picture looks: a round and a node of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from workbench.core.trace import Round, Trace


class Place(Protocol):
    """Anything with a round (position in ``trace.rounds``) and a node (-1 = the root)."""

    @property
    def round(self) -> int: ...

    @property
    def node(self) -> int: ...


class At(NamedTuple):
    """The plainest :class:`Place`."""

    round: int = 0
    node: int = -1


def round_at(trace: Trace, at: Place | None) -> tuple[int, Round | None]:
    """Position and round, clamped to the trace; (-1, None) where there is no round yet."""
    if not trace.rounds:
        return -1, None
    position = max(0, min(0 if at is None else at.round, len(trace.rounds) - 1))
    return position, trace.rounds[position]


def node_at(round_: Round | None, at: Place | None) -> int:
    """The node, clamped; -1 where nothing but the root is there."""
    if round_ is None or at is None:
        return -1
    return max(-1, min(at.node, len(round_.tokens) - 1))


def children(round_: Round) -> list[list[int]]:
    """Children of each row (row 0 = the root) in draw order."""
    rows: list[list[int]] = [[] for _ in range(len(round_.tokens) + 1)]
    for node, parent in enumerate(round_.parent):
        rows[parent + 1].append(node)
    return rows
