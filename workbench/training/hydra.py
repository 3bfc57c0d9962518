"""Train Hydra's heads by teacher forcing: head i at place t also reads the true tokens after t."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.core.losses import soft_cross_entropy
from workbench.drafters.hydra import HEADS, HydraHeads
from workbench.training.features import Batch, Features
from workbench.training.soft import no_hits, rank_hits


class HydraTask:
    """Hydra++'s objective (arXiv 2402.05109, section 4): the teacher's law as the label.

    *Deviations*: no dropout and no noise; one block a head.
    """

    name, taps = "hydra", ("final",)

    def __init__(self, heads: int = HEADS):
        self.heads = heads

    def build(self, model) -> HydraHeads:
        return HydraHeads(model.network.config, self.heads)

    def guesses(self, model, head: HydraHeads, batch: Batch):
        """For each head i its states at the places t whose path t+1 .. t+1+i lies in the row."""
        hidden = head.prefixed(batch.final)
        embedded = model.anatomy.embed(batch.ids)
        length = batch.ids.shape[1]
        for i in range(self.heads):
            places = length - 1 - i
            path = torch.stack([embedded[:, j + 1 : j + 1 + places] for j in range(i + 1)], -2)
            yield i, head(i, hidden[:, :places], path)

    def loss(self, model, head: HydraHeads, batch: Batch) -> torch.Tensor:
        total = batch.final.new_zeros(())
        for i, states in self.guesses(model, head, batch):
            with torch.no_grad():
                teacher = model.anatomy.logits(batch.final[:, i + 1 :])
            total = total + soft_cross_entropy(model.anatomy.logits(states), teacher)
        return total / self.heads

    @inference_mode()
    def measure(self, model, head: HydraHeads, features: Features) -> dict[str, Any]:
        """Chance of each rank of each head once the path before it is right."""
        from workbench.training.medusa import ranked

        hits = [no_hits(model.vocab_size) for _ in range(self.heads)]
        seen = [0] * self.heads
        for start in range(0, len(features), 16):
            batch = features.batch(range(start, min(start + 16, len(features))))
            for i, states in self.guesses(model, head, batch):
                truth = batch.ids[:, i + 2 :]
                hits[i] += rank_hits(model.anatomy.logits(states[:, :-1]), truth)
                seen[i] += truth.numel()
        return {"rank_accuracy": ranked(hits, seen)}
