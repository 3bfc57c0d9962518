"""Data of a view as one JSON text, which hosts pass on without looking into it.

*Idea*: both hosts walk through every list that they send, value by value, to look for buffers or
models in it. A text is one value; the page opens it (``dwFields`` in host.js).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KEY = "packed"


def packed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data as ``{"packed": JSON text}``; nothing stays nothing."""
    if not data:
        return {}
    return {KEY: json.dumps(data, separators=(",", ":"), ensure_ascii=False)}
