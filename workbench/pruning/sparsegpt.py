"""What goes is made up for by what stays."""

from __future__ import annotations

import torch

from workbench.core.masks import Pattern, keep_mask, lowest, removed_count
from workbench.core.method import Paper, knob, method
from workbench.core.pruning import Stats, Unit, heard


@method(
    "pruner",
    title="SparseGPT",
    paper=Paper(
        "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
        2023,
        "2301.00774",
    ),
)
class SparseGpt:
    """Remove weights column by column and correct the later columns for the error made.

    *Idea*: removing a weight changes the output by a known amount, and weights of correlated inputs
    can take it over. The optimal brain surgeon's update does that, with one Cholesky factor for all
    rows.

    *Paper*: Frantar and Alistarh 2023 (arXiv 2301.00774, algorithm 1): with H = 2XX'/n + damping
    and c the upper Cholesky factor of its inverse, the lowest W_ij^2 / c_jj^2 of a block of columns
    go, and the error (W_ij - 0) / c_jj is pushed through row j of c to the columns after j.

    N:M is their extension: a group is chosen when its first column is reached, from weights that
    are corrected for all that went before.

    *Deviations*: the number removed is exact over the matrix, not rounded block by block. ``row``
    chooses within each row of a block of columns, ``global`` takes a choice made over all matrices
    from the dense scores and only corrects. Inputs that were never active lose their weights first,
    small ones before large ones, but no more than the ratio says (the paper's code removes all),
    and do not count in the mean that the damping is a share of. The last columns have nothing
    after them.

    *Cost*: a Cholesky factor a matrix, cubic in its inputs; the statistics are quadratic in them.
    """

    acts_on = "weights"
    hears = "gram"
    one_shot = False

    damping: float = knob(
        0.01, low=1e-4, high=1.0, help="Added to H's diagonal, as a share of its mean."
    )
    columns: int = knob(
        128, low=8, high=1024, step=8, unit="columns", help="Columns chosen from at a time."
    )

    def _factor(self, stats: Stats) -> tuple[torch.Tensor, torch.Tensor]:
        """The upper Cholesky factor of the damped inverse Hessian ``[in in]``, and who is idle."""
        hessian = 2 * stats.gram.double() / max(1, stats.tokens)
        diagonal = hessian.diagonal()
        idle = diagonal == 0  # inputs that were never active
        mean = 1.0 if bool(idle.all()) else float(diagonal[~idle].mean())
        diagonal[idle] = mean
        diagonal += self.damping * mean
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return torch.linalg.cholesky(inverse, upper=True), idle

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """W_ij^2 / c_jj^2 of the weights as they are, ``[out in]``."""
        factor, idle = self._factor(heard(stats, unit))
        return _scores(unit.weight.double(), factor.diagonal(), idle).float()

    def prune(
        self,
        unit: Unit,
        stats: Stats | None,
        pattern: Pattern,
        ratio: float,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask and the corrected weights, both ``[out in]``."""
        factor, idle = self._factor(heard(stats, unit))
        weight = unit.weight.double().T.contiguous()  # [in out]: a column of W is a row here
        wide, size = len(weight), self._block(pattern)
        span = pattern.of if pattern.kind == "n_m" else size  # columns chosen at once
        kept = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
        for start in range(0, wide, size):
            end = min(start + size, wide)
            errors = torch.zeros_like(weight[start:end])
            for column in range(start, end):
                if column % span == 0:
                    here = slice(column, min(column + span, end))
                    if mask is not None:
                        kept[here] = mask[:, here].T.to(weight.device)
                    else:
                        scores = _scores(weight[here].T, factor.diagonal()[here], idle[here])
                        kept[here] = _chosen(scores, pattern, ratio, here.start, here.stop).T
                error = (weight[column] / factor[column, column]).masked_fill(kept[column], 0)
                weight[column:end].addr_(factor[column, column:end], error, alpha=-1)
                errors[column - start] = error
            weight[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
        weight[~kept] = 0
        return kept.T.contiguous(), weight.T.to(unit.weight.dtype).contiguous()

    def _block(self, pattern: Pattern) -> int:
        """Columns at a time; groups are never cut."""
        if pattern.kind != "n_m":
            return self.columns
        return max(pattern.of, self.columns // pattern.of * pattern.of)


def _scores(weight: torch.Tensor, factor: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
    """W_ij^2 / c_jj^2; below all of these, by size, what an idle input is multiplied with."""
    square = weight.square()
    return torch.where(idle, -1 / (1 + square), square / factor.square())


def _chosen(
    scores: torch.Tensor, pattern: Pattern, ratio: float, start: int, end: int
) -> torch.Tensor:
    """What stays of some columns; the counts of all blocks add up to the matrix's."""
    if pattern.kind == "n_m":
        return keep_mask(scores, pattern, ratio)
    if pattern.kind == "row":
        return ~lowest(scores, removed_count(end, ratio) - removed_count(start, ratio))
    rows = len(scores)
    count = removed_count(rows * end, ratio) - removed_count(rows * start, ratio)
    return ~lowest(scores.flatten(), count).view(scores.shape)
