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
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from workbench.core.decoding import Verdict
from workbench.core.errors import BadInput, Mismatch
from workbench.core.method import make_method
from workbench.core.trace import Round, Trace
from workbench.core.tree import DraftTree, shape_of

CLOSE = 1e-9  # bounds closer than this are one number
LARGEST_VOCABULARY = 1 << 18  # no model has more tokens; bounds what a warmer tail can weigh
SPREAD = 64  # tokens that a tail is spread over, to see whether a rule looks at its shape
LEFT = 1e-6  # mass that counts as nothing


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
    power = _power(trace, change)
    try:
        verdicts = [(tree, verifier.verify(tree, p)) for tree, p in _extremes(done, kept, power)]
    except Mismatch as refusal:
        return _silent(done, kept, str(refusal))
    if _reads_the_tail(verifier, done, kept, power, verdicts):
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


class _Laws(NamedTuple):
    """What is known at one row: p by token, its smallest kept top value, q of each child."""

    p: dict[int, float]
    least: float
    q: dict[int, dict[int, float]]


def _laws_at(done: Round, kept: list[int], row: int) -> _Laws:
    top = done.p_top[row]
    p = dict(zip(top.ids, top.probs, strict=True))
    least = min(p.values(), default=1.0)
    children = [node for node in kept if done.parent[node] == row - 1]
    for node in children:
        p[done.tokens[node]] = done.p_node[node]
    q: dict[int, dict[int, float]] = {}
    if done.q_node is not None:
        for node in children:
            law = done.q_top[node] if done.q_top else None
            q[node] = dict(zip(law.ids, law.probs, strict=True)) if law else {}
            q[node][done.tokens[node]] = done.q_node[node]
        _share_siblings(done, children, q)
    return _Laws(p, least, q)


def _share_siblings(done: Round, children: list[int], q: dict[int, dict[int, float]]) -> None:
    """Siblings know about each other's tokens: equal laws, or what is left of the one before."""
    if done.drawn == "with_replacement":
        joined = {token: value for node in children for token, value in q[node].items()}
        for node in children:
            q[node] = dict(joined)
        return
    for node, after in reversed(list(pairwise(children))):
        token = done.tokens[node]
        left = 1 - q[node][token]
        for other, value in q[after].items():
            if other != token:
                q[node].setdefault(other, value * left)
    for place, node in enumerate(children):
        for earlier in children[:place]:
            q[node][done.tokens[earlier]] = 0.0


def _extremes(
    done: Round, kept: list[int], power: float, spread: int = 1
) -> Iterator[tuple[DraftTree, torch.Tensor]]:
    """The tree and its laws over the known tokens, for each extreme of what is not known."""
    rows = [0, *(node + 1 for node in kept)]
    laws = {row: _laws_at(done, kept, row) for row in rows}
    ids = sorted({token for law in laws.values() for token in law.p} | _drafted(laws))
    weights = (0.0,) if power == 1 else (0.0, 1.0)
    for together in (True, False):
        for weight in weights:
            yield _tree(done, kept, laws, ids, power, together, weight, spread)


def _drafted(laws: dict[int, _Laws]) -> set[int]:
    return {token for law in laws.values() for known in law.q.values() for token in known}


def _tree(done, kept, laws, ids, power, together, weight, spread):
    """One extreme: ``together`` puts both tails on one token; ``weight`` picks p's heavier tail."""
    place = {token: index for index, token in enumerate(ids)}
    size = len(ids) + 2 * spread
    p = torch.zeros(len(kept) + 1, size, dtype=torch.float64)
    probs = torch.zeros(len(kept), size, dtype=torch.float64)
    number = {node: index for index, node in enumerate(kept)}
    for index, row in enumerate([0, *(node + 1 for node in kept)]):
        law = laws[row]
        target, tail = _at_temperature(law, power, weight)
        shared = set(target)
        if together:  # whatever one side does not know may overlap: merge it into the tail
            for known in law.q.values():
                shared &= set(known)
            tail += sum(value for token, value in target.items() if token not in shared)
        for token in shared if together else target:
            p[index, place[token]] = target[token]
        p[index, len(ids) : len(ids) + spread] = tail / spread
        for node, known in law.q.items():
            named = {t: v for t, v in known.items() if not together or t in shared}
            for token, value in named.items():
                probs[number[node], place[token]] = value
            rest = max(0.0, 1 - sum(named.values()))
            first = len(ids) if together else len(ids) + spread
            probs[number[node], first : first + spread] = rest / spread
    p = p / p.sum(1, keepdim=True)
    tree = DraftTree(
        torch.tensor([place[done.tokens[node]] for node in kept], dtype=torch.long),
        tuple(number.get(done.parent[node], -1) for node in kept),
        None if done.q_node is None else probs / probs.sum(1, keepdim=True),
        with_replacement=done.drawn != "without_replacement",
    )
    return tree, p


def _at_temperature(law: _Laws, power: float, weight: float) -> tuple[dict[int, float], float]:
    """p by token and the tail's mass at the new temperature, with the lighter or heavier tail."""
    tail = max(0.0, 1 - sum(law.p.values()))
    if power == 1:
        return dict(law.p), tail
    if math.isinf(power):
        best = max(law.p, key=law.p.__getitem__)
        return {token: float(token == best) for token in law.p}, 0.0
    raised = {token: value**power for token, value in law.p.items()}
    mild = tail * law.least ** (power - 1) if tail > LEFT else 0.0
    far = 0.0
    if power < 1 and tail > LEFT:
        far = LARGEST_VOCABULARY ** (1 - power) * tail**power
    heavy, light = max(mild, far), min(mild, far)
    extra = heavy if weight else light
    total = sum(raised.values()) + extra
    return {token: value / total for token, value in raised.items()}, extra / total


def _reads_the_tail(verifier, done, kept, power, verdicts) -> bool:
    """Whether the rule's answer depends on how the unkept mass is spread over tokens."""
    for (_, one), (tree, p) in zip(verdicts, _extremes(done, kept, power, SPREAD), strict=True):
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
