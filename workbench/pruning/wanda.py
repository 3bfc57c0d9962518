"""Small weights under quiet inputs go."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, method
from workbench.core.pruning import Stats, Unit, heard


@method(
    "pruner",
    title="Wanda",
    paper=Paper(
        "A Simple and Effective Pruning Approach for Large Language Models", 2023, "2306.11695"
    ),
)
class Wanda:
    """Keep the weights whose product with the size of their input is largest.

    *Idea*: a small weight matters if what it is multiplied with is loud. In large models a few
    inputs are a hundred times louder than the rest, and magnitude alone removes their weights.

    *Paper*: Sun et al. 2023 (arXiv 2306.11695, section 3): |W_ij| times ||X_j||_2, compared within
    each output row; blocks are pruned in order, each hears the pruned ones before it.

    *Deviations*: the pattern is a setting of its own; only ``row`` and N:M are the paper's, and
    Wanda compared within a whole matrix is another method. Exactly the k lowest of a row go.

    *Cost*: one pass over the calibration text and two through each block.
    """

    acts_on = "weights"
    hears = "norms"
    one_shot = False

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """|W_ij| s_j, ``[out in]``."""
        return unit.weight.float().abs() * heard(stats, unit).norms.float()
