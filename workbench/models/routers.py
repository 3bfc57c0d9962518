"""Where a mixture's routers are, and what they say during a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def routers_of(network: nn.Module) -> dict[int, nn.Module]:
    """Layer number -> its router: the gate that returns (logits, weights, indices).

    Dense layers have none; a model without experts gives an empty dict. Recognised by what a gate
    has (``top_k``, ``num_experts`` and a ``weight``), so families share one rule.
    """
    found = {}
    for name, module in network.named_modules():
        if all(hasattr(module, part) for part in ("top_k", "num_experts", "weight")):
            numbers = [int(part) for part in name.split(".") if part.isdigit()]
            found[numbers[0] if numbers else len(found)] = module
    return found


@contextmanager
def router_logits(network: nn.Module) -> Iterator[dict[int, torch.Tensor]]:
    """Collect what every router computes inside: layer -> logits ``[t e]`` of its latest call."""
    heard: dict[int, torch.Tensor] = {}

    def listen(layer: int):
        def hook(module, args, output):
            heard[layer] = output[0]

        return hook

    handles = [
        gate.register_forward_hook(listen(layer)) for layer, gate in routers_of(network).items()
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
