"""A recorded run under another rule, temperature or budget: recomputed from the trace, no model.

*Idea*: a trace keeps every drafted token with its p and q and the top of each law. What a rule does
with them can be computed again; what depends on the mass that was not kept lies between two
extremes, the tails of p and q on the same tokens and on different ones, and is given as an interval
where the two differ. The recorded drafts and text stay as they are: numbers are expectations round
by round along the text that was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from workbench.core.decoding import Verdict
from workbench.core.errors import BadInput, Mismatch
from workbench.core.method import make_method
from workbench.core.trace import Round, Trace
from workbench.core.tree import shape_of
from workbench.engine.known_laws import extremes

CLOSE = 1e-9  # bounds closer than this are one number
LARGEST_VOCABULARY = 1 << 18  # where a trace does not say; bounds a warmer tail's weight
SPREAD = 64  # tokens that a tail is spread over, to see whether a rule looks at its shape


@dataclass(frozen=True)
class Change:
    """What to change; None keeps what was recorded.

    Args:
        verifier: a registered name or an instance.
        temperature: of the target, while verifying.
        width, depth, nodes: most siblings, levels and nodes; a recorded tree can only be cut.
    """

    verifier: Any = None
    temperature: float | None = None
    width: int | None = None
    depth: int | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class RoundReplay:
    """One round under the change.

    Args:
        recorded: tokens expected under the recorded rule, tree and temperature.
        low, high: tokens expected under the change; equal where they are known exactly.
        kept: recorded nodes that are left.
        accept: bounds of the chance to move on to each of them, given its parent.
        why: why nothing can be said; then ``low`` and ``high`` are what any rule could give.
    """

    recorded: float
    low: float
    high: float
    kept: tuple[int, ...]
    accept: tuple[tuple[float, float], ...]
    why: str = ""


@dataclass(frozen=True)
class Replay:
    """All rounds, and what could not be known, as sentences."""

    rounds: tuple[RoundReplay, ...]
    unknown: tuple[str, ...]

    @property
    def recorded(self) -> float:
        """Mean tokens a round as recorded, over the rounds that can be answered."""
        return _mean([r.recorded for r in self.rounds if not r.why])

    @property
    def bounds(self) -> tuple[float, float]:
        """Mean tokens a round under the change, over the rounds that can be answered."""
        known = [r for r in self.rounds if not r.why]
        return _mean([r.low for r in known]), _mean([r.high for r in known])

    @property
    def answered(self) -> int:
        """Rounds that can be answered."""
        return sum(not r.why for r in self.rounds)


def what_if(trace: Trace, change: Change) -> Replay:
    """Every round of ``trace`` under ``change``.

    Raises:
        BadInput: a temperature below 0, or a cut below 0.
        UnknownMethod: no such verifier.
    """
    if change.temperature is not None and not 0 <= change.temperature < math.inf:
        raise BadInput(f"temperature={change.temperature!r}: must be 0 or more")
    for name in ("width", "depth", "nodes"):
        value = getattr(change, name)
        if value is not None and value < 0:
            raise BadInput(f"{name}={value!r}: must be 0 or more")
    verifier = _verifier(trace, change)
    rounds = tuple(_replayed(trace, done, verifier, change) for done in trace.rounds)
    return Replay(rounds, tuple(_unknown(trace, rounds, change)))


def _verifier(trace: Trace, change: Change) -> Any:
    if change.verifier is not None:
        return make_method("verifier", change.verifier)
    return make_method("verifier", trace.verifier.name, **trace.verifier.knobs)


def _replayed(trace: Trace, done: Round, verifier: Any, change: Change) -> RoundReplay:
    kept = kept_nodes(done, change)
    if len(kept) == len(done.tokens) and change.verifier is None and change.temperature is None:
        same = tuple((chance, chance) for chance in done.accept)
        total = done.expected_emitted
        return RoundReplay(total, total, total, tuple(kept), same)
    why = _cannot(trace, done, change) or _branches(verifier, [done.depth[n] for n in kept])
    if why or not kept:
        return _silent(done, kept, why)
    power, size = _power(trace, change), trace.vocab_size or LARGEST_VOCABULARY
    try:
        verdicts = [
            (tree, verifier.verify(tree, p)) for tree, p in extremes(done, kept, power, size)
        ]
    except Mismatch as refusal:
        return _silent(done, kept, str(refusal))
    if _reads_the_tail(verifier, done, kept, power, size, verdicts):
        why = f"{verifier.name} reads the whole law, and the trace kept only its top"
        return _silent(done, kept, why)
    totals = [verdict.expected_emitted(tree) for tree, verdict in verdicts]
    chances = torch.stack([verdict.accept.double() for _, verdict in verdicts])
    accept = tuple(zip(chances.amin(0).tolist(), chances.amax(0).tolist(), strict=True))
    return RoundReplay(done.expected_emitted, min(totals), max(totals), tuple(kept), accept)


def _branches(verifier: Any, depths: list[int]) -> str:
    if not verifier.chains_only or sorted(set(depths)) == depths:
        return ""
    return f"{verifier.name} takes one chain, and this tree branches; a width of 1 cuts it to one"


def _silent(done: Round, kept: list[int], why: str) -> RoundReplay:
    """Nothing is known but that a round gives one token and at most one more a level."""
    most = 1.0 + max((done.depth[node] for node in kept), default=0)
    unknown = tuple((0.0, 1.0) for _ in kept)
    return RoundReplay(done.expected_emitted, 1.0, most, tuple(kept), unknown, why)


def kept_nodes(done: Round, change: Change) -> list[int]:
    """Recorded nodes within the new width, depth and node budget; parents come first."""
    kept: list[int] = []
    siblings: dict[int, int] = {}
    depth = done.depth
    for node, above in enumerate(done.parent):
        rank = siblings[above] = siblings.get(above, 0) + 1
        if above >= 0 and above not in kept:
            continue
        wide = change.width is not None and rank > change.width
        deep = change.depth is not None and depth[node] > change.depth
        full = change.nodes is not None and len(kept) >= change.nodes
        if not (wide or deep or full):
            kept.append(node)
    return kept


def _cannot(trace: Trace, done: Round, change: Change) -> str:
    if not done.p_top and done.tokens:
        return "it was recorded without laws (record_top=0)"
    was = float(trace.sampling.get("temperature", 0.0))
    if change.temperature is None or change.temperature == was:
        return ""
    if was == 0:
        return "it was recorded at temperature 0, where each law is one point"
    filters = trace.sampling.get("top_k", 0) or trace.sampling.get("top_p", 1.0) < 1
    if filters and change.temperature > 0:
        return "top-k or top-p had cut its laws, and would cut them elsewhere at this temperature"
    return ""


def _power(trace: Trace, change: Change) -> float:
    """The exponent that takes p to the new temperature; infinite for temperature 0."""
    was = float(trace.sampling.get("temperature", 0.0))
    if change.temperature is None or change.temperature == was:
        return 1.0
    return math.inf if change.temperature == 0 else was / change.temperature


def _reads_the_tail(verifier, done, kept, power, size, verdicts) -> bool:
    """Whether the rule's answer depends on how the unkept mass is spread over tokens."""
    for (_, one), (tree, p) in zip(
        verdicts, extremes(done, kept, power, size, SPREAD), strict=True
    ):
        other: Verdict = verifier.verify(tree, p)
        if float((one.stop.double() - other.stop.double()).abs().max()) > 1e-6:
            return True
    return False


def _unknown(trace: Trace, rounds: tuple[RoundReplay, ...], change: Change) -> Iterator[str]:
    reasons: dict[str, int] = {}
    for one in rounds:
        if one.why:
            reasons[one.why] = reasons.get(one.why, 0) + 1
    for why, count in reasons.items():
        yield f"{count} of {len(rounds)} rounds cannot be answered: {why}."
    wide = sum(not one.why and one.high - one.low > CLOSE for one in rounds)
    if wide:
        yield (
            f"{wide} rounds are known only within bounds, because the trace kept the top of each"
            " law; record with a larger record_top to narrow them."
        )
    most = _largest(trace)
    for name, has in most.items():
        asked = getattr(change, name)
        if asked is not None and asked > has:
            yield f"{name}={asked}: the recorded trees have {has} at most; larger ones are unknown."
    changed = change.verifier is not None or change.temperature is not None
    if changed and len(rounds) > 1:
        yield (
            "The text would have gone another way after the first different outcome: these are"
            " expectations for each round on the recorded text."
        )


def _largest(trace: Trace) -> dict[str, int]:
    width = depth = nodes = 0
    for done in trace.rounds:
        shape = shape_of(tuple(done.parent))
        width = max([width, *(len(children) for children in shape.children)])
        depth, nodes = max([depth, *done.depth]), max(nodes, len(done.tokens))
    return {"width": width, "depth": depth, "nodes": nodes}


def largest_tree(trace: Trace) -> dict[str, int]:
    """Most siblings (``width``), levels (``depth``) and ``nodes`` of any recorded tree."""
    return _largest(trace)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
