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

    *Deviations*: the number removed is exact over the matrix, not rounded block by block. ``row``
    chooses within each row of a block of columns, ``global`` takes a choice made over all matrices
    from the dense scores and only corrects. Inputs that were never active lose their weights as in
    the paper's code, which counts before everything else. The last columns have nothing after them.

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

    def _factor(self, stats: Stats) -> torch.Tensor:
        """The upper Cholesky factor of the damped inverse Hessian ``[in in]``."""
        gram = stats.gram.double()
        hessian = 2 * gram / max(1, stats.tokens)
        diagonal = hessian.diagonal()
        diagonal[diagonal == 0] = 1  # an input that was never active
        diagonal += self.damping * diagonal.mean()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return torch.linalg.cholesky(inverse, upper=True)

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """W_ij^2 / c_jj^2 of the weights as they are, ``[out in]``."""
        factor = self._factor(heard(stats, unit)).diagonal()
        return (unit.weight.double() / factor).square().float()

    def prune(
        self,
        unit: Unit,
        stats: Stats | None,
        pattern: Pattern,
        ratio: float,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask and the corrected weights, both ``[out in]``."""
        factor = self._factor(heard(stats, unit))
        weight = unit.weight.double().T.contiguous()  # [in out]: a column of W is a row here
        wide, size = len(weight), self._block(pattern)
        kept = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
        for start in range(0, wide, size):
            end = min(start + size, wide)
            if mask is not None:
                kept[start:end] = mask[:, start:end].T.to(weight.device)
            else:
                scores = (weight[start:end].T / factor.diagonal()[start:end]).square()
                kept[start:end] = _chosen(scores, pattern, ratio, start, end).T
            errors = torch.zeros_like(weight[start:end])
            for column in range(start, end):
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


def _chosen(
    scores: torch.Tensor, pattern: Pattern, ratio: float, start: int, end: int
) -> torch.Tensor:
    """What stays of a block of columns; the counts of all blocks add up to the matrix's."""
    if pattern.kind == "n_m":
        return keep_mask(scores, pattern, ratio)
    if pattern.kind == "row":
        return ~lowest(scores, removed_count(end, ratio) - removed_count(start, ratio))
    rows = len(scores)
    count = removed_count(rows * end, ratio) - removed_count(rows * start, ratio)
    return ~lowest(scores.flatten(), count).view(scores.shape)
