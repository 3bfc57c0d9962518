"""Quiet heads go, in the groups that share a key and a value."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, knob, method
from workbench.core.pruning import Stats, Unit, heard


@method(
    "pruner",
    title="Heads (KV groups)",
    paper=Paper("Are Sixteen Heads Really Better than One?", 2019, "1905.10650"),
)
class Heads:
    """Remove the attention heads that write least into the stream.

    *Idea*: a head speaks through its columns of the output projection. Weights there times the size
    of what they are multiplied with tell how loud it is, as Wanda does for single weights.

    *Paper*: removing heads is Michel et al. 2019 (arXiv 1905.10650); the score is Wanda's
    (arXiv 2306.11695) on the output projection, summed over a head, instead of their gradients.

    *Deviations*: whole groups go, because query heads that share a key cannot leave alone. Heard
    once, in the dense network.

    *Cost*: one pass over the calibration text.
    """

    acts_on = "groups"
    hears = "norms"
    one_shot = True

    by: str = knob(
        "activation", choices=("activation", "weight"), help="With the size of the input, or not."
    )

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """Sum over a group's columns of |W_o| s, ``[g]``."""
        columns = unit.tensors["o"].double().abs().sum(0)
        if self.by == "activation":
            columns = columns * heard(stats, unit).norms
        return columns.view(unit.shape[0], -1).sum(1)
