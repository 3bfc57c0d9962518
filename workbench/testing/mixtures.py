"""Slow, obvious references for mixtures: a block by hand, and a model with an expert cut out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.routers import routers_of

MIXTURES = ("qwen2_moe", "qwen3_moe", "mixtral", "olmoe")


def blocks_of(network: nn.Module) -> dict[int, Any]:
    """Layer number -> the block that holds its router and experts."""
    gates = routers_of(network)
    return {
        number: block
        for number, gate in gates.items()
        for block in network.modules()
        if gate in block.children()
    }


def mixed_by_hand(block: Any, x: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Every expert computed for every token and weighted: ``x [t d]``, ``dense [t e]``."""
    experts, total = block.experts, torch.zeros_like(x)
    for number in range(dense.shape[1]):
        gate, up = F.linear(x, experts.gate_up_proj[number]).chunk(2, -1)
        total += dense[:, number, None] * F.linear(F.silu(gate) * up, experts.down_proj[number])
    return total


@torch.no_grad()
def without_expert(network: nn.Module, layer: int, expert: int) -> nn.Module:
    """A copy in which one expert of one layer is physically gone."""
    smaller = copy.deepcopy(network)
    block = blocks_of(smaller)[layer]
    left = [number for number in range(block.gate.num_experts) if number != expert]
    for owner, name in (
        (block.gate, "weight"),
        (block.experts, "gate_up_proj"),
        (block.experts, "down_proj"),
    ):
        setattr(owner, name, nn.Parameter(getattr(owner, name)[left].clone()))
    block.gate.num_experts = block.experts.num_experts = len(left)
    return smaller
