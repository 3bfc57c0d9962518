"""Weights that matter little to their row and to their column go."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, knob, method
from workbench.core.pruning import Stats, Unit, heard


@method(
    "pruner",
    title="RIA",
    paper=Paper(
        "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models",
        2024,
        "",
    ),
)
class Ria:
    """Keep the weights that are a large share of their row or column, and whose input is loud.

    *Idea*: an absolute score can empty a whole input or output channel of small weights. As shares
    of their own channel its largest weights are as large as those of a loud one.

    *Paper*: Zhang et al., ICLR 2024: (|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) ||X_j||_2^a
    with a = 1/2; blocks are pruned in order, each hears the pruned ones before it.

    *Deviations*: the pattern is a setting of its own. Their permutation of channels, which makes
    N:M lose less, is not here. Exactly the k lowest go.

    *Cost*: as Wanda: one pass over the calibration text and two through each block.
    """

    acts_on = "weights"
    hears = "norms"
    one_shot = False

    power: float = knob(
        0.5, low=0.0, high=2.0, step=0.1, help="Of the input's size; 0 = weights alone."
    )

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """Shares of row and column times s_j^a, ``[out in]``."""
        size = unit.weight.double().abs()
        shares = sum(size / size.sum(side, keepdim=True).clamp_min(1e-30) for side in (0, 1))
        return shares * heard(stats, unit).norms ** self.power
