"""What a pass costs on this machine: milliseconds against rows and stored tokens, measured.

A curve answers for any size by interpolation, so that trees and lengths can be chosen by what they
cost here, and a predicted speed-up can stand beside the measured one.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from workbench.core.errors import BadInput
from workbench.models.model import Model

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (64, 512)


@dataclass(frozen=True)
class CostCurve:
    """Milliseconds of a pass on a grid of rows x stored tokens.

    Args:
        model: its name.
        rows: sizes measured, rising, from 1.
        contexts: stored tokens measured, rising.
        ms: ``[contexts][rows]``, medians.
        predicted: computed for a machine that is not this one, and to be shown as such.
    """

    model: str
    rows: tuple[int, ...]
    contexts: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    predicted: bool = False

    def __post_init__(self) -> None:
        for name in ("rows", "contexts"):
            axis = getattr(self, name)
            if not axis or list(axis) != sorted(set(axis)) or axis[0] < 0:
                raise BadInput(f"{name}={axis}: sizes in rising order")
        if [len(line) for line in self.ms] != [len(self.rows)] * len(self.contexts):
            raise BadInput("ms: one value for every size of rows and contexts")

    def pass_ms(self, rows: int, context: int | None = None) -> float:
        """Milliseconds of a pass, between and beyond what was measured by straight lines."""
        lines = [_between(self.rows, line, rows) for line in self.ms]
        where = self.contexts[0] if context is None else context
        return max(0.0, _between(self.contexts, lines, where))

    def to_json(self) -> dict:
        return msgspec.to_builtins(self)

    @staticmethod
    def from_json(data: dict) -> CostCurve:
        """Read a curve back; a file that is none is refused.

        Raises:
            BadInput: with what is wrong.
        """
        try:
            return msgspec.convert(data, CostCurve)
        except msgspec.ValidationError as problem:
            raise BadInput(f"this is no cost curve: {problem}") from None


def _between(axis: Sequence[float], values: Sequence[float], at: float) -> float:
    """Linear between the axis' points, and along the nearest stretch beyond them."""
    if len(axis) == 1:
        return values[0]
    place = min(max(bisect_right(axis, at) - 1, 0), len(axis) - 2)
    share = (at - axis[place]) / (axis[place + 1] - axis[place])
    return values[place] + share * (values[place + 1] - values[place])


def measure_curve(
    model: Model,
    rows: Sequence[int] = ROWS,
    contexts: Sequence[int] = CONTEXTS,
    repeats: int = 7,
    progress: Callable[[float], None] = lambda share: None,
    stopped: Callable[[], bool] = lambda: False,
) -> CostCurve | None:
    """Time passes of every size after every context; sizes take turns in each repeat.

    Sizes that the model's context cannot hold are left out. A pass scores a tree of one level:
    its rows see the stored tokens and the root.

    Returns:
        The curve, or None where ``stopped`` said so.

    Raises:
        BadInput: nothing that fits.
    """
    most = model.context_tokens
    held = [c for c in sorted(contexts) if c + 1 <= most] or [0]
    sizes = [n for n in sorted(rows) if held[-1] + n <= most]
    if not sizes:
        raise BadInput(f"rows={tuple(rows)}: none fits the {most} tokens of {model.name}")
    text = _some_tokens(model, held[-1])
    sessions = []
    for context in held:
        session = model.session()
        session.sync(text[:context])
        sessions.append(session)
    spent: dict[tuple[int, int], list[float]] = {}
    for repeat in range(repeats + 1):
        for n in sizes:
            for where, session in enumerate(sessions):
                if stopped():
                    return None
                parent = (-1, *(0,) * (n - 1))
                root = text[:1] or [0]
                done = session.forward(root * n, parent if n > 1 else None)
                if repeat:  # the first round warms up
                    spent.setdefault((where, n), []).append(done.ms)
        progress((repeat + 1) / (repeats + 1))
    ms = tuple(
        tuple(statistics.median(spent[where, n]) for n in sizes) for where in range(len(sessions))
    )
    return CostCurve(model.name, tuple(sizes), tuple(held), ms)


def _some_tokens(model: Model, count: int) -> list[int]:
    """Any text of the model's vocabulary: what is said does not change what it costs."""
    top = model.known_tokens
    return [(7 + 31 * k) % top for k in range(count)]


@dataclass(frozen=True)
class RoundCost:
    """What a round costs: drafting level by level, one verify pass, and the rest.

    Args:
        verify: of the target.
        draft: of the draft model, None = drafting is free but for ``draft_ms``.
        draft_ms: outside passes, a round: what drafting and checking a tree adds.
        other_ms: outside passes, a round, also without a draft.
        link_ms: of moving a tree between two devices, a round.
    """

    verify: CostCurve
    draft: CostCurve | None = None
    draft_ms: float = 0.0
    other_ms: float = 0.0
    link_ms: float = 0.0

    def round_ms(self, nodes: int, depth: int, context: int | None = None) -> float:
        """Milliseconds of a round with ``nodes`` nodes on ``depth`` levels.

        A draft model runs once for the root and once for each level but the last, over the level's
        share of the nodes.
        """
        drafting = self.draft_ms if nodes else 0.0
        if self.draft is not None and nodes and depth:
            each = max(1.0, nodes / depth)
            drafting += self.draft.pass_ms(1, context)
            drafting += (depth - 1) * self.draft.pass_ms(round(each), context)
        link = self.link_ms if nodes else 0.0
        return drafting + self.verify.pass_ms(nodes + 1, context) + self.other_ms + link

    def plain_ms(self, context: int | None = None) -> float:
        """Milliseconds of one token without a draft."""
        return self.verify.pass_ms(1, context) + self.other_ms

    def speedup(self, emitted: float, nodes: int, depth: int, context: int | None = None) -> float:
        """Tokens a second against plain decoding, for so many tokens emitted a round."""
        return emitted * self.plain_ms(context) / self.round_ms(nodes, depth, context)
