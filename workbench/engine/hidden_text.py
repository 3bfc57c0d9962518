"""The target's hidden states of the text so far, one growing buffer a tap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from workbench.core.transfer import sent


class HiddenText(Mapping[str, torch.Tensor]):
    """Tap -> ``[t d]`` for every committed token but the root; grown by doubling.

    Args:
        first: hidden states of the prompt without its last token.
    """

    def __init__(self, first: Mapping[str, torch.Tensor]):
        self._stores = {name: rows.clone() for name, rows in first.items()}
        self._length = max((len(rows) for rows in first.values()), default=0)

    def append(self, hidden: Mapping[str, torch.Tensor], kept: Sequence[int]) -> None:
        """Add the rows ``kept`` of a forward's hidden states."""
        end = self._length + len(kept)
        for name, rows in hidden.items():
            store = self._stores.get(name, rows[:0])
            if len(store) < end:
                grown = store.new_empty(max(2 * len(store), end, 64), rows.shape[-1])
                grown[: self._length] = store[: self._length]
                self._stores[name] = store = grown
            store[self._length : end] = rows[sent(kept, rows.device)]
        self._length = end

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._stores[name][: self._length]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stores)

    def __len__(self) -> int:
        return len(self._stores)
