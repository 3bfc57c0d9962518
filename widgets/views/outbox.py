"""Events from a view: a list that only grows, so that no click is merged away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]


def drain(outbox: Iterable[Any], last_seq: int) -> tuple[list[Event], int]:
    """The events after ``last_seq`` in order, and the new last number.

    A view keeps its latest 100 events under ``outbox``; numbers start at the browser's clock, so a
    reloaded page does not go backwards. Items that are no numbered events are passed over.

    Example:
        >>> drain([{"seq": 7, "kind": "node"}, {"seq": 8, "kind": "node"}], 7)
        ([{'seq': 8, 'kind': 'node'}], 8)
    """
    fresh = [
        item
        for item in outbox
        if isinstance(item, Mapping)
        and isinstance(item.get("seq"), int | float)
        and item["seq"] > last_seq
    ]
    fresh.sort(key=lambda item: item["seq"])
    return fresh, max([last_seq, *(int(item["seq"]) for item in fresh)])
