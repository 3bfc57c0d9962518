"""States that make a model's own head say what a test wants."""

from __future__ import annotations

import torch

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 1]


def saying(model, tokens: torch.Tensor) -> torch.Tensor:
    """States ``[... d]`` from which the model's head reads a law peaked at each of ``tokens``."""
    weight = model.anatomy.head.weight.double()
    wanted = torch.nn.functional.one_hot(tokens, weight.shape[0]).double() * 20
    return wanted @ torch.linalg.pinv(weight).T
