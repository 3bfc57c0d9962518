"""The rows of one pass: their tokens, where they stand, and whom they see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True, eq=False)
class Rows:
    """The input of one pass over ``n`` rows; positions and masks are made when somebody asks.

    Args:
        ids: tokens ``[n]``.
        past: slots of the cache before these rows.
        origin: position of depth 0; slots from there on hold rows that are not committed yet.
        depth: of each row ``[n]`` in its tree; None = the rows are one chain after the past.
        block: additive mask ``[n past-origin+n]`` over the slots from ``origin`` on; None likewise.
        bias: added to the scores of the first slots (virtual tokens), or None.
        dtype: of the mask.
    """

    ids: torch.Tensor
    past: int
    origin: int
    depth: torch.Tensor | None
    block: torch.Tensor | None
    bias: torch.Tensor | None
    dtype: torch.dtype

    @property
    def chain(self) -> bool:
        """Whether every row sees all slots and rows before it."""
        return self.depth is None

    @property
    def causal(self) -> bool:
        """Whether this is a chain of several rows at the start of an empty cache."""
        return self.depth is None and self.past == 0 and len(self.ids) > 1

    @cached_property
    def positions(self) -> torch.Tensor:
        """Position of each row ``[n]``, counted over all slots."""
        if self.depth is None:
            return torch.arange(self.past, self.past + len(self.ids), device=self.ids.device)
        return self.depth + self.origin

    @cached_property
    def mask(self) -> torch.Tensor | None:
        """Additive ``[1 1 n past+n]``: 0 or the dtype's lowest value, and the bias.

        None where none is needed: for a single row and for a causal chain, without a bias.
        """
        n, width = len(self.ids), self.past + len(self.ids)
        if self.depth is not None:
            assert self.block is not None  # a tree has both
            mask = self.ids.new_zeros(1, 1, n, width, dtype=self.dtype)
            mask[..., self.origin :] = self.block
        elif n > 1 and not self.causal:
            mask = causal_mask(n, self.past, self.dtype, self.ids.device)
        elif self.bias is None:
            return None
        else:
            mask = self.ids.new_zeros(1, 1, 1, width, dtype=self.dtype)
        if self.bias is not None:
            mask[..., : len(self.bias)] += self.bias
        return mask


def causal_mask(n: int, past: int, dtype: torch.dtype, device) -> torch.Tensor:
    """Additive ``[1 1 n past+n]`` mask of a chain that follows ``past`` stored tokens."""
    blocked = torch.ones(n, past + n, dtype=torch.bool, device=device).triu(past + 1)
    mask = torch.zeros(n, past + n, dtype=dtype, device=device)
    return mask.masked_fill_(blocked, torch.finfo(dtype).min)[None, None]
