"""What is selected in a trace: one round, and in it a node or an emitted token."""

from __future__ import annotations

from typing import NamedTuple

from workbench.core.trace import Round, Trace

ROOT = -1


class Selection(NamedTuple):
    """``round`` is a position in ``trace.rounds``; ``node`` -1 is the root.

    ``index`` counts the emitted tokens of the round; None where the node was not emitted.
    """

    round: int = 0
    node: int = ROOT
    index: int | None = None


def of_round(trace: Trace, position: int) -> Selection:
    """A round and the node worth looking at first: where it went wrong, else its last node kept."""
    if not trace.rounds:
        return Selection()
    position = max(0, min(position, len(trace.rounds) - 1))
    return of_node(trace, position, telling_node(trace.rounds[position]))


def telling_node(round_: Round) -> int:
    """The first refused node, else the deepest accepted one, else the root."""
    fates = round_.node_fates
    if "rejected" in fates:
        return fates.index("rejected")
    return round_.path[-1] if round_.path else ROOT


def telling_round(trace: Trace) -> int:
    """A round that shows the most at a glance: most of kept and refused nodes, near the middle."""
    middle = len(trace.rounds) / 2

    def worth(position: int) -> tuple[int, float]:
        fates = trace.rounds[position].node_fates
        both = min(fates.count("accepted"), fates.count("rejected"))
        return both, -abs(position - middle)

    return max(range(len(trace.rounds)), key=worth, default=0)


def last_drafted(trace: Trace) -> int:
    """The last round that drafted something, else the last one."""
    rounds = range(len(trace.rounds))
    return max((at for at in rounds if trace.rounds[at].tokens), default=len(rounds) - 1)


def of_node(trace: Trace, position: int, node: int) -> Selection:
    """A node of a round, with the emitted token it became if it did."""
    round_ = trace.rounds[position]
    node = max(ROOT, min(node, len(round_.tokens) - 1))
    index = round_.path.index(node) if node in round_.path else None
    if index is not None and index >= len(round_.emitted):
        index = None
    return Selection(position, node, index)


def of_token(trace: Trace, position: int, index: int) -> Selection:
    """An emitted token; the extra token of a round selects the row that it was drawn after."""
    round_ = trace.rounds[position]
    if not round_.emitted:
        return of_round(trace, position)
    index = max(0, min(index, len(round_.emitted) - 1))
    if index < len(round_.path):
        return Selection(position, round_.path[index], index)
    return Selection(position, round_.path[-1] if round_.path else ROOT, index)
