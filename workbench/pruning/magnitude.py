"""Small weights go."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, method
from workbench.core.pruning import Stats, Unit


@method(
    "pruner",
    title="Magnitude",
    paper=Paper(
        "Learning both Weights and Connections for Efficient Neural Networks", 2015, "1506.02626"
    ),
)
class Magnitude:
    """Keep the weights that are largest in absolute value.

    *Idea*: a weight near zero adds little, whatever it is multiplied with. No text is needed.

    *Paper*: Han et al. 2015 (arXiv 1506.02626, section 3.1), one-shot and without their retraining.

    *Deviations*: exactly the k smallest go, ties by index; the threshold of the usual
    implementations removes one weight too many, also at ratio 0.
    """

    acts_on = "weights"
    hears = ""
    one_shot = True

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """|W|, ``[out in]``."""
        return unit.weight.float().abs()
