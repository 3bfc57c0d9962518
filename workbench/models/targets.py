"""The weight matrices of a network that an adapter may change."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from workbench.core.adapter import TargetShape


def layer_of(name: str) -> int:
    """The layer that a module's path lies in, -1 outside the layers."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """(d_in, d_out) of a linear map, None for anything else."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return None


def target_shapes(network: nn.Module) -> list[TargetShape]:
    """Every linear map of a network, in order; an adapted one counts as what it wraps."""
    found = []
    for name, module in network.named_modules():
        plain = name.removesuffix(".base_layer")
        size = shape_of(module)
        if size and not _inside_an_adapter(network, plain):
            while plain.endswith(".base_layer"):
                plain = plain.removesuffix(".base_layer")
            found.append(TargetShape(plain, layer_of(plain), *size))
    return found


def _inside_an_adapter(network: nn.Module, name: str) -> bool:
    """Whether the path leads through the parts of a tuner layer (not through what it wraps)."""
    module = network
    for part in name.split("."):
        if hasattr(module, "adapter_layer_names") and part != "base_layer":
            return True
        module = getattr(module, part)
    return False
