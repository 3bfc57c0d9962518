"""Linear maps of small frozen networks beside a target, multiplied by the compiled kernel."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.native.build import Unavailable, attempt
from workbench.models.native.panels import multiplied, packed_matrix
from workbench.models.native.walk import MOST_ROWS

M = TypeVar("M", bound=nn.Module)


class CompiledLinear(nn.Linear):
    """A linear map whose packed copy is used while its weight is as it was packed.

    Args:
        linear: in float32 on the CPU; its parameters are shared, not copied.
    """

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        bias = None if linear.bias is None else linear.bias.detach().contiguous()
        bias_at = None if bias is None else bias.data_ptr()
        matrix, panels = packed_matrix(linear.weight.detach().contiguous(), bias_at)
        self._packed = (matrix, panels, bias)
        self._packed_version = self._version_now()

    def _version_now(self) -> int:
        return self.weight._version + (0 if self.bias is None else self.bias._version)

    def __deepcopy__(self, memo: dict) -> CompiledLinear:
        return self  # frozen, and its addresses are those of this very copy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[... inputs]`` to ``[... outputs]``."""
        rows = x.reshape(-1, self.in_features)
        if not self._fits(rows):
            return F.linear(x, self.weight, self.bias)
        found = x.new_empty(*x.shape[:-1], self.out_features)
        return multiplied(self._packed[0], rows.contiguous(), found)

    def _fits(self, rows: torch.Tensor) -> bool:
        plain = rows.dtype == torch.float32 and rows.device.type == "cpu"
        learnt = torch.is_grad_enabled() and (rows.requires_grad or self.weight.requires_grad)
        few = 0 < rows.shape[0] <= MOST_ROWS
        return plain and few and not learnt and self._version_now() == self._packed_version


def compiled(module: M) -> M:
    """The module with its float32 linear maps on the CPU compiled, if there is a kernel here."""
    if isinstance(attempt(), Unavailable):
        return module
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and _packable(child.weight):
                setattr(parent, name, CompiledLinear(child))
    return module


def _packable(weight: torch.Tensor) -> bool:
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return plain and not weight.is_inference()
