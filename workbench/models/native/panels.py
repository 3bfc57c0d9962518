"""One weight as the kernel reads it."""

from __future__ import annotations

import ctypes

import torch

from workbench.models.native.build import Matrix, kernel

_LANES = 16


def packed_matrix(weight: torch.Tensor, bias_at: int | None = None) -> tuple[Matrix, torch.Tensor]:
    """A contiguous float32 weight ``[outputs inputs]`` in panels, and the numbers it points to.

    They are kept in 16 bits where that loses nothing, else in 32.

    Raises:
        Unavailable: there is no kernel here.
    """
    outputs, inputs = weight.shape
    narrow = kernel().wb_fits_narrow(weight.data_ptr(), weight.numel())
    rows = -(-outputs // _LANES) * _LANES
    panels = torch.empty(rows * inputs, dtype=torch.bfloat16 if narrow else torch.float32)
    kernel().wb_pack(weight.data_ptr(), outputs, inputs, narrow, panels.data_ptr())
    return Matrix(panels.data_ptr(), bias_at, outputs, inputs, narrow), panels


def multiplied(matrix: Matrix, rows: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """``found``, which holds the products of contiguous ``rows`` ``[n inputs]`` afterwards."""
    kernel().wb_multiply(
        ctypes.addressof(matrix),
        rows.data_ptr(),
        len(rows),
        torch.get_num_threads(),
        found.data_ptr(),
    )
    return found
