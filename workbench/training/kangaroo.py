"""Train Kangaroo's adapter: the law of the full depth from the stream of the first layers."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.core.losses import soft_cross_entropy
from workbench.drafters.kangaroo import KangarooAdapter
from workbench.training.features import Batch, Features
from workbench.training.soft import no_hits, overlap, rank_hits


class KangarooTask:
    """Soft cross-entropy at the same place (arXiv 2404.18911, section 3.2), frozen target.

    *Deviations*: most rows are the target's own outputs, not a data set's text; the adapter's
    norm starts as the target's; the gradient is clipped by its norm instead of value by value.
    """

    name = "kangaroo"

    def __init__(self, exit_layer: int = 2):
        self.exit_layer = exit_layer
        self.taps = ("final", str(exit_layer))

    def build(self, model) -> KangarooAdapter:
        adapter = KangarooAdapter(model.network.config)
        adapter.norm.weight.data.copy_(model.anatomy.norm.weight)
        return adapter

    def _logits(self, model, head: KangarooAdapter, batch: Batch) -> torch.Tensor:
        return model.anatomy.logits(head(batch.states[str(self.exit_layer)]))

    def loss(self, model, head: KangarooAdapter, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            teacher = model.anatomy.logits(batch.final)
        return soft_cross_entropy(self._logits(model, head, batch), teacher)

    @inference_mode()
    def measure(self, model, head: KangarooAdapter, features: Features) -> dict[str, Any]:
        """Agreement with the full depth, beside that of the untrained early exit."""
        sums = {"overlap": 0.0, "untrained_overlap": 0.0}
        hits, seen, plain = no_hits(model.vocab_size), 0, self.build(model)
        for start in range(0, len(features), 16):
            batch = features.batch(range(start, min(start + 16, len(features))))
            teacher = model.anatomy.logits(batch.final)
            logits = self._logits(model, head, batch)
            hits += rank_hits(logits, teacher.argmax(-1))
            seen += batch.ids.numel()
            sums["overlap"] += float(overlap(logits, teacher)) * len(batch.ids)
            bare = self._logits(model, plain, batch)
            sums["untrained_overlap"] += float(overlap(bare, teacher)) * len(batch.ids)
        return {
            "exit_layer": self.exit_layer,
            "agreement": (hits / seen).round(decimals=5).tolist(),
            **{name: round(value / len(features), 5) for name, value in sums.items()},
        }
