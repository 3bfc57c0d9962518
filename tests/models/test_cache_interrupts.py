"""A Ctrl-C at any step of making room leaves a layer's keys and values usable together."""

from __future__ import annotations

import sys

import pytest
import torch

from workbench.models import cache as cache_module
from workbench.models.cache import PreallocatedLayer

SHAPE = (1, 2, 3, 4)


class Interrupt:
    """Raises KeyboardInterrupt before the n-th instruction of the cache's own code."""

    def __init__(self, at: int):
        self.left = at

    def __enter__(self):
        sys.settrace(self._enter)

    def __exit__(self, *error) -> None:
        sys.settrace(None)

    def _enter(self, frame, event, arg):
        if frame.f_code.co_filename != cache_module.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame, event, arg):
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self._step


def some(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return keys, values


def allocated(layer: PreallocatedLayer) -> None:
    layer.allocate(*some(0))


def grown(layer: PreallocatedLayer) -> None:
    layer.update(*some(1))
    layer.grow(8)


@pytest.mark.parametrize("work", [allocated, grown])
def test_keys_and_values_have_room_together_whenever_it_was_interrupted(work):
    interrupted = 0
    for at in range(1000):
        layer = PreallocatedLayer(4)
        try:
            with Interrupt(at):
                work(layer)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        stores = layer.key_store, layer.value_store
        assert stores == (None, None) or stores[0].shape == stores[1].shape
        layer.length = 0  # as a session sets it before a pass
        layer.grow(16)
        for seed in (2, 3):
            keys, values = layer.update(*some(seed))
        assert layer.key_store.shape[2] == layer.value_store.shape[2] == 16
        assert torch.equal(keys[:, :, 3:], some(3)[0]) and torch.equal(values[:, :, 3:], some(3)[1])
    assert 20 < interrupted < 1000
