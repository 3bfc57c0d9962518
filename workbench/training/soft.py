"""The distances and the accuracies that heads share: the teacher's law against the head's."""

from __future__ import annotations

import torch
from torch.nn import functional as F

RANKS = 16


def no_hits(vocab_size: int) -> torch.Tensor:
    """Counts of zero, one for each rank that is looked at."""
    return torch.zeros(min(RANKS, vocab_size), dtype=torch.double)


def rank_hits(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """How often the true token has rank 0, 1, ... among the head's: counts ``[ranks]``."""
    best = logits.topk(min(RANKS, logits.shape[-1]), -1).indices
    return (best == truth[..., None]).flatten(0, -2).sum(0).double()


def overlap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of sum_x min(p, q): the acceptance of one token drawn at temperature 1."""
    p, q = teacher.float().softmax(-1), student.float().softmax(-1)
    return torch.minimum(p, q).sum(-1).mean()


def distance(guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Smooth L1 of two states, as EAGLE uses it."""
    return F.smooth_l1_loss(guess, truth)
