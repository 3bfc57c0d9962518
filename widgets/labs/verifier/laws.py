"""Where the two laws of the verifier lab come from: an example, a recorded round, or a hand."""

from __future__ import annotations

from collections.abc import Sequence

from widgets import theme
from workbench.core.errors import BadInput
from workbench.core.trace import Round, Trace

TOKENS = 5  # shown of a recorded law; the last stands for all other tokens
AUDITED_TOKENS = 4  # a tree of four nodes over five tokens takes seconds to enumerate
EXAMPLE = (
    ("self", "name", "None", "(", "other"),
    (0.42, 0.27, 0.15, 0.10, 0.06),
    (0.22, 0.12, 0.40, 0.08, 0.18),
)
Laws = tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]  # labels, p, q


def laws_of_round(trace: Trace, done: Round) -> Laws:
    """Labels, p and q at a round's root: its likeliest tokens, the rest as one.

    Raises:
        BadInput: a round whose tokens were chosen, or that was recorded without laws.
    """
    eldest = next((n for n, above in enumerate(done.parent) if above == -1), None)
    if eldest is None or done.q_node is None or not done.p_top or not done.q_top:
        raise BadInput(
            f"round {done.index + 1}: its drafts were chosen, or no laws were kept; choose a round"
            " with drawn drafts"
        )
    p = dict(zip(done.p_top[0].ids, done.p_top[0].probs, strict=True))
    q = dict(zip(done.q_top[eldest].ids, done.q_top[eldest].probs, strict=True))
    ranked = sorted({*p, *q}, key=lambda t: -max(p.get(t, 0.0), q.get(t, 0.0)))[: TOKENS - 1]
    mine = [p.get(token, 0.0) for token in ranked]
    theirs = [q.get(token, 0.0) for token in ranked]
    labels = (*(theme.visible(trace.piece(token)) for token in ranked), "all others")
    rest = (max(0.0, 1 - sum(mine)), max(0.0, 1 - sum(theirs)))
    return labels, normal((*mine, rest[0])), normal((*theirs, rest[1]))


def telling_round(trace: Trace) -> int:
    """The round whose laws overlap least: there the rules differ most.

    Raises:
        BadInput: a run without drawn drafts, or without their laws.
    """
    overlap = {}
    for place, done in enumerate(trace.rounds):
        if done.q_node is not None and done.p_top and done.parent:
            _, p, q = laws_of_round(trace, done)
            overlap[place] = sum(map(min, p, q))
    if not overlap:
        raise BadInput("this run holds no drawn drafts with their laws; record one at T > 0")
    return min(overlap, key=overlap.__getitem__)


def moved(law: Sequence[float], index: int, value: float) -> tuple[float, ...]:
    """The law with one token at ``value``; the others share the rest in their old proportions."""
    rest, others = sum(law) - law[index], len(law) - 1
    shares = [chance / rest if rest > 0 else 1 / others for chance in law]
    return tuple(value if n == index else (1 - value) * s for n, s in enumerate(shares))


def normal(law: Sequence[float]) -> tuple[float, ...]:
    """The law with its sum made 1."""
    total = sum(law)
    return tuple(float(x) / total for x in law)


def shortened(law: Sequence[float]) -> tuple[float, ...]:
    """The first tokens, the last of them with all the rest."""
    if len(law) <= AUDITED_TOKENS:
        return tuple(law)
    return (*law[: AUDITED_TOKENS - 1], sum(law[AUDITED_TOKENS - 1 :]))
