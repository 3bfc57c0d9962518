"""One pass of fixed shapes in fixed buffers, so that it can be recorded once and replayed.

Nothing in it depends on a number that only the device knows, and nothing waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from workbench.models.cache import HeldStores
from workbench.models.rows import Rows
from workbench.models.walk import FusedWalk

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_LEAST_WIDTH = 128


class Bucket(NamedTuple):
    """What a pass is recorded for: so many rows, which see so many slots, and the taps kept."""

    rows: int
    width: int
    taps: tuple[str, ...]

    @staticmethod
    def of(count: int, past: int, capacity: int, taps: tuple[str, ...]) -> Bucket:
        """The smallest that ``count`` rows after ``past`` slots fit.

        The width is a power of two, or all of the ``capacity`` where that is less; the rows that
        fill the bucket up need slots, too.
        """
        rows = rows_of(count)
        width = max(_LEAST_WIDTH, 1 << (past + rows - 1).bit_length())
        return Bucket(rows, min(width, capacity), taps)


def rows_of(count: int) -> int:
    """Rows of the smallest bucket that holds ``count``."""
    return next(rows for rows in ROWS if rows >= count)


class _Slots(NamedTuple):
    """One layer's stores, written at given slots and read up to a fixed width."""

    keys: torch.Tensor
    values: torch.Tensor
    slots: torch.Tensor
    width: int

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor):
        """Write ``[1 heads n head_dim]``; returns views of all slots in the width."""
        self.keys.index_copy_(2, self.slots, key_states)
        self.values.index_copy_(2, self.slots, value_states)
        return self.keys[:, :, : self.width], self.values[:, :, : self.width]


class StaticPass:
    """The fused walk over one bucket; :meth:`fill` says which rows, :meth:`run` is recorded.

    *Idea*: to the walk a bucket is a tree whose mask covers every slot. Rows that only fill it up
    stand behind the real ones, which do not see them, and write where the next rows will; they see
    slots of their own, so that no number of theirs is ever NaN.

    Args:
        walk: of the model.
        bucket: the shapes.
        held: the stores of the session's cache; written to where they lie now.
        dtype: of the model.
    """

    def __init__(self, walk: FusedWalk, bucket: Bucket, held: HeldStores, dtype: torch.dtype):
        device = held.stores[0][0].device
        rows, width = bucket.rows, bucket.width
        self.bucket, self._walk, self._dtype = bucket, walk, dtype
        self.ids, self.slots, self.positions = torch.zeros(
            3, rows, dtype=torch.long, device=device
        ).unbind()
        self.mask = torch.zeros(rows, width, dtype=dtype, device=device)
        self._order = torch.arange(rows, device=device)
        self._places = torch.arange(width, device=device)
        self._hidden = torch.zeros(rows, width, dtype=torch.bool, device=device)
        self._stores = [_Slots(*pair, self.slots, width) for pair in held.stores]
        # Replays read the tables where they lie now; the walk may have longer ones by then.
        self._tables = walk.rotary_tables(self.mask, width)

    def fill(self, rows: Rows) -> None:
        """Put rows without a bias into the buffers; the count may be less than the bucket's."""
        n = len(rows.ids)
        self.ids[:n] = rows.ids
        torch.add(self._order, rows.past, out=self.slots)
        self.positions.copy_(self.slots)
        torch.gt(self._places, self.slots[:, None], out=self._hidden)
        self.mask.zero_().masked_fill_(self._hidden, torch.finfo(self._dtype).min)
        if rows.depth is not None and rows.block is not None:
            torch.add(rows.depth, rows.origin, out=self.positions[:n])
            self.mask[:n, rows.origin : rows.past + n] = rows.block

    def run(self) -> tuple[torch.Tensor, ...]:
        """The final normed states ``[rows d]`` and each tap ``[rows d]``, of what was filled in."""
        past = self.bucket.width - self.bucket.rows
        rows = Rows(self.ids, past, 0, self.positions, self.mask, None, self._dtype)
        done = self._walk.run(rows, self._stores, None, self.bucket.taps)
        return (done.final, *(done.taps[tap] for tap in self.bucket.taps))
