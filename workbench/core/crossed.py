"""What a round's record says of the copies between two devices; needs no torch to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Transfer(NamedTuple):
    """Copies between the devices of draft and target; their time is part of the round's."""

    ms: float
    bytes: int

    @staticmethod
    def told(report: Mapping[str, Any]) -> Transfer | None:
        """As the round was told; None where nothing crossed, or a file says it in other types."""
        ms, count = report.get("transfer_ms"), report.get("transfer_bytes")
        if not isinstance(ms, (int, float)) or not isinstance(count, int) or count <= 0:
            return None
        return Transfer(float(ms), count)

    @staticmethod
    def total(parts: Iterable[Transfer | None]) -> Transfer | None:
        """All of them together; None where there is none."""
        found = [part for part in parts if part is not None]
        return Transfer(*map(sum, zip(*found, strict=True))) if found else None
