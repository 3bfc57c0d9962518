"""Train EAGLE's head: the next feature, and the law that the LM head reads from it."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.core.losses import soft_cross_entropy
from workbench.drafters.eagle import EagleHead
from workbench.training.features import Batch, Features
from workbench.training.soft import distance, no_hits, overlap, rank_hits


class EagleTask:
    """EAGLE-1's objective (arXiv 2401.15077, section 4.2) and a second, unrolled step.

    *Deviations*: the cross-entropy weighs 1 and the feature distance 0.5 (0.1 and 1 in the paper),
    because ten million parameters leave little to regress; the noise on the features spans 0.1
    whatever the length (0.2 times 512 over the length there); the second step feeds the head its
    own features, as EAGLE-3 does, so that drafts deeper than one level are trained for.
    """

    name, taps = "eagle", ("final",)
    feature_weight, noise, unrolled_weight = 0.5, 0.1, 0.5

    def build(self, model) -> EagleHead:
        return EagleHead(model.network.config)

    def _step(self, model, head: EagleHead, batch: Batch, features: torch.Tensor, shift: int):
        """Guessed features of place t+1 for features of place t, and the truth there."""
        embedded = model.anatomy.embed(batch.ids[:, shift:])
        guess = head(embedded, features)
        return guess, batch.final[:, shift:]

    def loss(self, model, head: EagleHead, batch: Batch) -> torch.Tensor:
        features = batch.final[:, :-1]
        noise = (torch.rand_like(features) - 0.5) * self.noise
        first, truth = self._step(model, head, batch, features + noise, 1)
        second, later = self._step(model, head, batch, first[:, :-1], 2)
        total = features.new_zeros(())
        for guess, wanted, weight in ((first, truth, 1.0), (second, later, self.unrolled_weight)):
            with torch.no_grad():
                teacher = model.anatomy.logits(wanted)
            law = soft_cross_entropy(model.anatomy.logits(guess), teacher)
            total = total + weight * (law + self.feature_weight * distance(guess, wanted))
        return total

    @inference_mode()
    def measure(self, model, head: EagleHead, features: Features) -> dict[str, Any]:
        """Rank accuracies and overlap of one and of two steps on held-out rows."""
        found = [no_hits(model.vocab_size) for _ in range(2)]
        seen, overlaps = [0, 0], [0.0, 0.0]
        for start in range(0, len(features), 16):
            batch = features.batch(range(start, min(start + 16, len(features))))
            first, truth = self._step(model, head, batch, batch.final[:, :-1], 1)
            second, later = self._step(model, head, batch, first[:, :-1], 2)
            for i, (guess, wanted) in enumerate(((first, truth), (second, later))):
                logits, next_ids = model.anatomy.logits(guess), batch.ids[:, i + 2 :]
                found[i] += rank_hits(logits[:, :-1], next_ids)
                seen[i] += next_ids.numel()
                overlaps[i] += float(overlap(logits, model.anatomy.logits(wanted))) * len(batch.ids)
        return {
            "rank_accuracy": [
                (hits / count).round(decimals=5).tolist()
                for hits, count in zip(found, seen, strict=True)
            ],
            "overlap": [round(value / len(features), 5) for value in overlaps],
        }
