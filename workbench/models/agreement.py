"""When two ways to compute the same logits count as one: by their spread and their precision."""

from __future__ import annotations

import torch

_LIMITS = {torch.float32: 2e-4, torch.float64: 1e-8}
_HALF = 0.08


def limit(dtype: torch.dtype) -> float:
    """The largest deviation that rounding explains, in units of the logits' spread."""
    return _LIMITS.get(dtype, _HALF)


def deviation(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, in units of the spread of ``wanted``; NaN where either has one."""
    spread = wanted.float().std().clamp_min(1e-6)
    return float((got - wanted).abs().max() / spread)
