"""Recurrent gates that do something from the start."""

from __future__ import annotations

import torch

from workbench.models.recurrent_gate import RecurrentGates
from workbench.moe.recurrent import Recurrent


def stirred(network, **knobs) -> RecurrentGates:
    """Gates with random weights everywhere, also where they would start at zero."""
    gates = Recurrent(width=8, **knobs).install(network)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in gates.added().values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.6)
    return gates
