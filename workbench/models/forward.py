"""What one pass gives, and how the rows of a tree see each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from workbench.core.clock import elapsed_ms
from workbench.core.errors import BadInput
from workbench.core.tree import shape_of
from workbench.models.rows import Rows


@dataclass(frozen=True, eq=False)
class Forward:
    """What one pass gave: ``logits[i]`` is the model's view after row i."""

    logits: Float[torch.Tensor, "rows v"]
    hidden: dict[str, torch.Tensor]
    marks: tuple = field(repr=False, default=())

    @property
    def ms(self) -> float:
        """Milliseconds of the pass (waits for the device)."""
        return elapsed_ms(*self.marks)


class Ascent(NamedTuple):
    """Rows that ran through the first ``depth`` layers; ``stream`` is what came out, ``[n d]``.

    ``passes`` are the rows of each pass that did it, in order.
    """

    tokens: list[int]
    stream: torch.Tensor | None
    depth: int
    passes: tuple[Rows, ...] = ()


@lru_cache(maxsize=256)
def tree_block(parent: tuple[int, ...], dtype: torch.dtype, device: str):
    """The additive mask ``[n n]`` among the rows of a tree, and each row's depth."""
    if not parent or parent[0] != -1:
        raise BadInput(f"forward: parent[0]={parent[:1]} must be -1 (the stored tokens)")
    if any(not 0 <= p < row for row, p in enumerate(parent) if row):
        raise BadInput("forward: every row after the first must follow an earlier row")
    shape = shape_of(tuple(p - 1 for p in parent[1:]))
    allowed = torch.from_numpy(np.array(shape.visible))
    mask = torch.zeros(len(parent), len(parent), dtype=dtype)
    mask.masked_fill_(~allowed, torch.finfo(dtype).min)
    row_depth = torch.from_numpy(np.array(shape.row_depth))
    return mask.to(device, non_blocking=True), row_depth.to(device, non_blocking=True)


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    if a == b[: len(a)]:
        return len(a)
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
