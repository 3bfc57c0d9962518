"""Losses that training and learning while decoding share."""

from __future__ import annotations

import torch


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of - sum softmax(teacher) log softmax(student), in nats; both ``[... v]``."""
    law = teacher.float().softmax(-1)
    return -(law * student.float().log_softmax(-1)).sum(-1).mean()


def balance_loss(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Switch Transformers' load loss of one layer: E times the sum over experts of f_e P_e.

    *Paper*: Switch Transformers, 2021, arXiv 2101.03961, section 2.2. f_e is the share of the
    tokens that send one of their ``k`` choices to e, P_e the mean router probability of e. Perfect
    balance gives k. Several layers are averaged *after* this product: pooled before it, layers that
    collapsed on different experts look balanced.

    Shapes: logits ``[t e]``; a 0-d tensor.
    """
    law = logits.float().softmax(-1)
    chosen = torch.zeros_like(law).scatter_(1, law.topk(k, dim=-1).indices, 1.0)
    return balance_of(law, chosen)


def balance_of(law: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The same load loss of any choice of experts: ``chosen [t e]`` is 1 where a token goes."""
    return law.shape[-1] * (chosen.mean(0) * law.mean(0)).sum()


def router_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of the entropy of the router's law, in nats; ``logits [t e]``."""
    logs = logits.float().log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()


def router_z_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of the squared log-sum-exp of ``logits [t e]`` (ST-MoE, 2202.08906)."""
    return logits.float().logsumexp(-1).square().mean()
