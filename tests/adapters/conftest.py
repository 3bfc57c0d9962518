"""A tiny network with adapters on it, ready for the tests of single methods."""

from __future__ import annotations

import pytest
import torch

from workbench.core.method import make_method
from workbench.models.adapting import Adapters
from workbench.testing.tiny_network import tiny_network

IDS = torch.randint(0, 5, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def adapters() -> Adapters:
    return Adapters(tiny_network(5, layers=3, seed=4))


@torch.no_grad()
def logits(adapters: Adapters) -> torch.Tensor:
    return adapters.model.network(input_ids=IDS, use_cache=False).logits


def attach(adapters: Adapters, name: str, method: str = "lora", seed: int = 0, **knobs) -> None:
    """An adapter whose tensors are not those that it starts with."""
    made = make_method("adapter", method, **knobs)
    adapters.attach(made.config(adapters.shapes), name, seed=seed)
    move(adapters, name, seed)


@torch.no_grad()
def move(adapters: Adapters, name: str, seed: int = 0) -> None:
    """Add noise to all tensors of an adapter."""
    generator = torch.Generator().manual_seed(seed + 10)
    for weight in adapters.parameters(name):
        weight.add_(0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))


def put_growing(adapters: Adapters, **knobs):
    """IncreLoRA with room for six ranks, as ``g``; the method and its allocator."""
    method = make_method("adapter", "increlora", **{"most": 6, **knobs})
    adapters.attach(method.config(adapters.shapes), "g")
    return method, method.companion(adapters.model.network, "g")
