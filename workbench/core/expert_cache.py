"""What a small fast memory for experts would do on a recorded routing: hits, traffic, waiting.

*Idea*: replay the record token by token. Each layer has room for a few experts; the router is
authoritative, so a miss is fetched at once and nothing that is computed ever changes. It names all
experts of a token together, so none of them makes room for another. Every time is projected from
the link's figures, never measured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from workbench.core.errors import BadInput
from workbench.core.routing import LayerRouting, RoutingRecord

POLICIES = ("pinned", "lru", "prefetch", "look-ahead")
Plan = Mapping[int, Sequence[Sequence[int]]]  # layer -> token -> experts, likeliest first


@dataclass(frozen=True)
class Link:
    """What lies between the slow and the fast memory.

    Args:
        gb_per_s: bandwidth, 10^9 bytes a second.
        latency_us: of each transfer.
        compute_us: what one layer takes; prefetching hides behind it.
    """

    gb_per_s: float = 16.0
    latency_us: float = 10.0
    compute_us: float = 50.0

    def ms(self, transfers: int, expert_bytes: int) -> float:
        """Milliseconds that so many experts take, one after another."""
        return transfers * (expert_bytes / (self.gb_per_s * 1e6) + self.latency_us / 1e3)


@dataclass(frozen=True)
class LayerCache:
    """Counts of one layer: every choice is a hit or a miss; wasted = prefetched, never used."""

    hits: int
    misses: int
    prefetches: int
    wasted: int
    wait_ms: float


@dataclass(frozen=True)
class CacheReport:
    """A replay: counts by layer, and what they come to.

    Args:
        capacity: experts that fit per layer.
        expert_bytes: of one expert.
    """

    policy: str
    capacity: int
    expert_bytes: int
    layers: Mapping[int, LayerCache]

    def total(self, part: str) -> float:
        return sum(getattr(layer, part) for layer in self.layers.values())

    @property
    def hit_ratio(self) -> float:
        """Hits / choices."""
        choices = self.total("hits") + self.total("misses")
        return self.total("hits") / choices if choices else 0.0

    @property
    def bytes_moved(self) -> int:
        """Misses and prefetches, the wasted ones too."""
        return int(self.total("misses") + self.total("prefetches")) * self.expert_bytes

    @property
    def wait_ms(self) -> float:
        """Projected time that the layers wait for experts."""
        return self.total("wait_ms")


class _Shelf:
    """The resident experts of one layer, least recently used first, and its counts."""

    def __init__(self, capacity: int):
        self.capacity, self.order = capacity, OrderedDict[int, None]()
        self.unused: set[int] = set()  # prefetched and not used yet
        self.hits = self.misses = self.prefetches = self.wasted = 0
        self.wait_ms = 0.0

    def use(self, expert: int) -> bool:
        """Whether it was there; if so it is the most recently used now."""
        if expert not in self.order:
            self.misses += 1
            return False
        self.order.move_to_end(expert)
        self.unused.discard(expert)
        self.hits += 1
        return True

    def put(self, expert: int, victim: int | None = None) -> None:
        """Make room, by the victim or the least recently used, and shelve it."""
        if len(self.order) >= self.capacity:
            gone = next(iter(self.order)) if victim is None else victim
            del self.order[gone]
            self.wasted += gone in self.unused
            self.unused.discard(gone)
        self.order[expert] = None

    def prefetch(self, experts: Sequence[int]) -> int:
        """Shelve what is predicted, keeping what is predicted and there; how many were moved."""
        wanted = list(dict.fromkeys(experts))[: self.capacity]
        new = [expert for expert in wanted if expert not in self.order]
        for expert in new:
            spare = next((one for one in self.order if one not in wanted), None)
            self.put(expert, spare)
            self.unused.add(expert)
        self.prefetches += len(new)
        return len(new)

    def counts(self) -> LayerCache:
        wasted = self.wasted + len(self.unused)
        return LayerCache(self.hits, self.misses, self.prefetches, wasted, self.wait_ms)


def replay(
    record: RoutingRecord,
    policy: str,
    capacity: int,
    expert_bytes: int,
    link: Link | None = None,
    plan: Plan | None = None,
) -> CacheReport:
    """Run a record through the caches, token after token.

    Args:
        capacity: experts per layer, 1 or more; fewer than a token needs are counted as they miss.
        plan: of ``prefetch`` the experts predicted for every token; of ``pinned`` one row a layer:
            the experts kept.

    Raises:
        BadInput: an unknown policy, no room, or a policy without the plan it needs.
    """
    if policy not in POLICIES:
        raise BadInput(f"policy={policy!r}: choose one of {list(POLICIES)}")
    if capacity < 1:
        raise BadInput(f"capacity={capacity}: a layer needs room for one expert or more")
    if policy in ("prefetch", "pinned") and plan is None:
        raise BadInput(f"policy={policy!r}: needs a plan of predicted experts")
    done = {
        number: _replayed(
            layer, policy, capacity, expert_bytes, link or Link(), (plan or {}).get(number)
        )
        for number, layer in record.layers.items()
    }
    return CacheReport(policy, capacity, expert_bytes, done)


def choices(layer: LayerRouting) -> list[list[int]]:
    """Experts of every token in the order of the record."""
    rows: list[list[int]] = [[] for _ in range(len(layer.logits))]
    for token, expert in zip(layer.token.tolist(), layer.expert.tolist(), strict=True):
        rows[token].append(expert)
    return rows


def _replayed(layer, policy, capacity, expert_bytes, link: Link, plan) -> LayerCache:
    rows, shelf = choices(layer), _Shelf(capacity)
    stream = [expert for row in rows for expert in row]
    at = 0
    if policy == "pinned":
        shelf.wait_ms += link.ms(shelf.prefetch(plan[0]), expert_bytes)
    for token, row in enumerate(rows):
        if policy == "prefetch":
            moved = link.ms(shelf.prefetch(plan[token]), expert_bytes)
            shelf.wait_ms += max(0.0, moved - link.compute_us / 1e3)
        for expert in row:
            at += 1
            if shelf.use(expert):
                continue
            shelf.wait_ms += link.ms(1, expert_bytes)
            if policy == "look-ahead" and len(shelf.order) >= capacity:
                shelf.put(expert, _farthest(shelf.order, stream, at))
            elif policy != "pinned":
                shelf.put(expert, next((one for one in shelf.order if one not in row), None))
    return shelf.counts()


def _farthest(resident, stream: list[int], at: int) -> int:
    """The resident expert that is needed last, or never (Belady)."""
    left, ahead = set(resident), at
    while len(left) > 1 and ahead < len(stream):
        left.discard(stream[ahead])
        ahead += 1
    return next(one for one in resident if one in left)


def chosen(record: RoutingRecord) -> Float[np.ndarray, "t c"]:
    """Every token's experts of all layers side by side, 1 where chosen."""
    parts = [(layer.dense != 0).numpy() for layer in record.layers.values()]
    return np.concatenate(parts, 1).astype(np.float64)


def grouped(record: RoutingRecord, group_tokens: int) -> list[int]:
    """An order of the tokens in which groups share experts: greedily, the one that adds least.

    A permutation; it is for tokens that may run in any order (prefill of many texts), not for the
    tokens of one text while it is written.

    Raises:
        BadInput: groups of less than one token.
    """
    if group_tokens < 1:
        raise BadInput(f"group_tokens={group_tokens}: one or more")
    uses, left, order = chosen(record), list(range(record.token_count)), []
    while left:
        touched = np.zeros(uses.shape[1])
        for _ in range(min(group_tokens, len(left))):
            new = (uses[left] * (1 - touched)).sum(1)
            best = left.pop(int(new.argmin()))
            touched = np.maximum(touched, uses[best])
            order.append(best)
    return order


def distinct_per_layer(record: RoutingRecord, order: Sequence[int], group_tokens: int) -> float:
    """Mean over groups and layers of the experts that a group touches."""
    uses = chosen(record)[list(order)]
    groups = [uses[at : at + group_tokens].max(0) for at in range(0, len(uses), group_tokens)]
    return float(np.mean([group.sum() for group in groups])) / len(record.layers)
