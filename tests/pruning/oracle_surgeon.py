"""SparseGPT without a Cholesky factor: after every column what is left is solved for anew."""

from __future__ import annotations

from collections.abc import Callable

import torch

Choose = Callable[[torch.Tensor, int, int], torch.Tensor]


def hessian_of(x: torch.Tensor, damping: float = 0.01) -> torch.Tensor:
    """2 X'X / n of ``x [n in]``, and 1 % of its mean diagonal on the diagonal."""
    hessian = 2 * x.T @ x / len(x)
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian)).to(x)


def worth(weight: torch.Tensor, hessian: torch.Tensor, column: int) -> torch.Tensor:
    """W_ij^2 / c_jj^2: c_jj^2 is the first entry of the inverse over the columns from j on."""
    return weight[:, column].square() / torch.linalg.inv(hessian[column:, column:])[0, 0]


def surgeon(
    weight: torch.Tensor, hessian: torch.Tensor, step: int, choose: Choose
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask and the weights ``[out in]``.

    Args:
        step: columns that are chosen from at once.
        choose: what goes of the columns ``first`` to ``last``, from their scores.
    """
    old, now = weight, weight.clone()
    wide = weight.shape[1]
    kept = torch.ones(weight.shape, dtype=torch.bool)
    for column in range(wide):
        if column % step == 0:
            last = min(column + step, wide)
            scores = torch.stack([worth(now, hessian, j) for j in range(column, last)], 1)
            kept[:, column:last] = ~choose(scores, column, last)
        now[:, column] = now[:, column] * kept[:, column]
        # the later columns that make the output's error least, given all columns up to this one
        done, left = slice(0, column + 1), slice(column + 1, wide)
        error = (now - old)[:, done] @ hessian[done, left]
        now[:, left] = old[:, left] - torch.linalg.solve(hessian[left, left], error.T).T
    return kept, now
