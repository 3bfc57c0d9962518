"""A key/value cache that is allocated once, appended in place and compacted by gather.

It speaks transformers' cache protocol, so the stock forward of any family can use it, and hands its
buffers to the fast walk, which writes into them directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers.cache_utils import Cache, DynamicLayer

from workbench.core.inference import inference_mode
from workbench.core.transfer import sent


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values ``[1 heads capacity head_dim]`` of which ``length`` are in use.

    A sliding-window layer is treated as a full one; the session refuses to grow past the window.
    """

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.length = capacity, 0
        # Both or neither, and of one capacity: an interrupt must not come between them.
        self._stores: tuple[torch.Tensor, torch.Tensor] | tuple[None, None] = (None, None)

    @property
    def key_store(self) -> torch.Tensor | None:
        """Keys with their spare room, or None before the first append."""
        return self._stores[0]

    @property
    def value_store(self) -> torch.Tensor | None:
        """Values likewise."""
        return self._stores[1]

    def allocate(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Make room, shaped and typed like the first keys and values that arrive."""
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        key_store = keys.new_zeros(*keys.shape[:2], self.capacity, keys.shape[-1])
        value_store = values.new_zeros(*values.shape[:2], self.capacity, values.shape[-1])
        self._stores = (key_store, value_store)

    def grow(self, capacity: int) -> None:
        """Move to larger stores; where memory runs out nothing has changed."""
        if self.key_store is not None and self.key_store.shape[2] < capacity:
            grown = []
            for old in self._stores:
                new = old.new_zeros(*old.shape[:2], capacity, old.shape[-1])
                new[:, :, : self.length] = old[:, :, : self.length]
                grown.append(new)
            self._stores = (grown[0], grown[1])
        self.capacity = capacity

    def update(self, key_states, value_states, *args, **kwargs):
        """Append ``[1 heads n head_dim]``; returns views of everything up to and with it."""
        if self.key_store is None:
            self.allocate(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.key_store[:, :, self.length : end] = key_states
        self.value_store[:, :, self.length : end] = value_states
        self.length = end
        return self.key_store[:, :, :end], self.value_store[:, :, :end]

    @property
    def keys(self):
        """Keys in use (a view), or None before the first append."""
        return None if self.key_store is None else self.key_store[:, :, : self.length]

    @keys.setter
    def keys(self, value) -> None:
        if value is not None:
            raise AttributeError("a preallocated layer is written through update()")

    @property
    def values(self):
        """Values in use (a view), or None before the first append."""
        return None if self.value_store is None else self.value_store[:, :, : self.length]

    @values.setter
    def values(self, value) -> None:
        if value is not None:
            raise AttributeError("a preallocated layer is written through update()")

    def get_seq_length(self) -> int:
        return self.length

    def move(self, source: torch.Tensor, start: int) -> None:
        """Copy the slots ``source`` to ``start`` onwards."""
        if self.key_store is not None:
            end = start + len(source)
            self.key_store[:, :, start:end] = self.key_store.index_select(2, source)
            self.value_store[:, :, start:end] = self.value_store.index_select(2, source)


class HeldStores:
    """The stores of a cache at one time; something was made for the memory where they lie."""

    def __init__(self, cache: KeyValueCache):
        self.stores = [(layer.key_store, layer.value_store) for layer in cache.layers]

    def hold(self, cache: KeyValueCache) -> bool:
        """Whether the cache is still there; growing moves it."""
        return all(
            layer.key_store is key and layer.value_store is value
            for layer, (key, value) in zip(cache.layers, self.stores, strict=True)
        )


class StoreAddresses(Protocol):
    """Where the stores of a cache lie in memory, for code that copies there without torch."""

    def hold(self, cache: KeyValueCache) -> bool:
        """Whether the stores are still there."""
        ...

    def move(self, start: int, sources: list[int]) -> None:
        """Copy the slots ``sources``, which rise, to ``start`` onwards in every layer."""
        ...


class KeyValueCache(Cache):
    """All layers of one session.

    Args:
        layers: number of layers.
        capacity: tokens that fit, drafts included; grown by doubling when exceeded.
        front: (keys, values) of each layer that stand before the first token for good; lengths
            count tokens only, so nobody else needs to know.
    """

    def __init__(self, layers: int, capacity: int, front: Sequence[tuple] = ()):
        self.front_tokens = front[0][0].shape[-2] if front else 0
        capacity += self.front_tokens
        super().__init__(layers=[PreallocatedLayer(capacity) for _ in range(layers)])
        self.capacity = capacity
        with inference_mode():
            for layer, (keys, values) in zip(self.layers, front, strict=False):
                layer.update(keys, values)
        self.addresses: StoreAddresses | None = None  # set by the compiled pass
        self.recorded: HeldStores | None = None  # set by the recorded pass

    def set_length(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens (nothing is moved)."""
        for layer in self.layers:
            layer.length = self.front_tokens + length

    def reserve(self, tokens: int) -> None:
        """Grow so that ``tokens`` fit."""
        if self.front_tokens + tokens > self.capacity:
            self._grow(self.front_tokens + tokens)

    @inference_mode()
    def _grow(self, tokens: int) -> None:
        capacity = self.capacity
        while capacity < tokens:
            capacity *= 2
        for layer in self.layers:
            layer.grow(capacity)
        self.capacity = capacity  # last: an interrupted growth is taken up again

    @inference_mode()
    def wipe(self, length: int) -> None:
        """Zero what lies after the first ``length`` tokens.

        Slots out of sight weigh nothing, but nothing times NaN is NaN where a pass reads them all.
        """
        for layer in self.layers:
            for store in (layer.key_store, layer.value_store):
                if store is not None:
                    store[:, :, self.front_tokens + length :] = 0

    def keep(self, length: int, rows: list[int]) -> None:
        """Compact: after the first ``length`` tokens keep only the given rows of what follows."""
        if rows != list(range(len(rows))):
            start = self.front_tokens + length
            self._move(start, [start + row for row in rows])
        self.set_length(length + len(rows))

    def _move(self, start: int, sources: list[int]) -> None:
        if self.addresses is not None and self.addresses.hold(self) and sources == sorted(sources):
            self.addresses.move(start, sources)
            return
        device = next((x.device for x in self.layers if x.key_store is not None), None)
        source = sent(sources, device or torch.device("cpu"))
        with inference_mode():
            for layer in self.layers:
                layer.move(source, start)
