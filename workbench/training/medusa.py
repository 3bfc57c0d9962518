"""Train Medusa's heads: head i at place t learns the law of the token two and i places after t."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.core.losses import soft_cross_entropy
from workbench.drafters.medusa import HEADS, MedusaHeads
from workbench.training.features import Batch, Features
from workbench.training.soft import no_hits, rank_hits


class MedusaTask:
    """Medusa-1 (arXiv 2401.10774, section 2.2.1): the target is frozen.

    *Deviations*: the label is the teacher's law at the place before the token instead of the token
    itself, which teaches the same thing with less noise; all heads weigh the same.
    """

    name, taps = "medusa", ("final",)

    def __init__(self, heads: int = HEADS):
        self.heads = heads

    def build(self, model) -> MedusaHeads:
        return MedusaHeads(model.network.config.get_text_config().hidden_size, self.heads)

    def loss(self, model, head: MedusaHeads, batch: Batch) -> torch.Tensor:
        final = batch.final
        guesses, total = head(final), final.new_zeros(())
        for i in range(self.heads):
            with torch.no_grad():
                teacher = model.anatomy.logits(final[:, i + 1 :])
            student = model.anatomy.logits(guesses[i][:, : -(i + 1)])
            total = total + soft_cross_entropy(student, teacher)
        return total / self.heads

    @inference_mode()
    def measure(self, model, head: MedusaHeads, features: Features) -> dict[str, Any]:
        """Chance of each rank of each head on held-out rows: what the tree is grown from."""
        hits = [no_hits(model.vocab_size) for _ in range(self.heads)]
        seen = [0] * self.heads
        for start in range(0, len(features), 16):
            batch = features.batch(range(start, min(start + 16, len(features))))
            guesses = head(batch.final)
            for i in range(self.heads):
                truth = batch.ids[:, i + 2 :]
                hits[i] += rank_hits(model.anatomy.logits(guesses[i][:, : -(i + 2)]), truth)
                seen[i] += truth.numel()
        return {"rank_accuracy": ranked(hits, seen)}


def ranked(hits: list[torch.Tensor], seen: list[int]) -> list[list[float]]:
    """Accuracies by head and rank, made to fall with the rank as a template needs them."""
    rows = []
    for counts, total in zip(hits, seen, strict=True):
        row = (counts / total).tolist()
        rows.append([round(min(row[: rank + 1]), 5) for rank in range(len(row))])
    return rows
