"""Layers that hardly turn the stream go."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, method
from workbench.core.pruning import Stats, Unit, heard


@method(
    "pruner",
    title="Layers (block influence)",
    paper=Paper(
        "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
        2024,
        "2403.03853",
    ),
)
class Layers:
    """Remove the layers whose output points where their input did.

    *Idea*: a layer adds to the stream. If the stream's direction hardly changes, little was added.

    *Paper*: Men et al. 2024 (arXiv 2403.03853, block influence): 1 - mean cosine between what
    enters and what leaves a layer.

    *Deviations*: none in the score. A layer is dropped by zeroing what it writes, so that it is the
    identity; slicing takes it out of the checkpoint.

    *Cost*: one pass over the calibration text.
    """

    acts_on = "layers"
    hears = "turns"
    one_shot = True

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """1 - mean cosine, ``[1]``."""
        return torch.tensor([1 - heard(stats, unit).cosine], dtype=torch.double)
