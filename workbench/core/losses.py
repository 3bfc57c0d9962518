"""Losses that training and learning while decoding share."""

from __future__ import annotations

import torch


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of - sum softmax(teacher) log softmax(student), in nats; both ``[... v]``."""
    law = teacher.float().softmax(-1)
    return -(law * student.float().log_softmax(-1)).sum(-1).mean()
