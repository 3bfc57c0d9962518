"""Train the acceptance head of SpecDec++: the draft learns which of its own guesses survive."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.core.sampling import fit_vocabulary
from workbench.policies.specdec_pp import AcceptanceHead
from workbench.training.features import Batch, Features


class SpecDecPPTask:
    """The data and the loss of arXiv 2405.19715, section 3.2.

    On rows that the target wrote, the draft samples a guess y at every place given the true text;
    its label is min(1, p(y)/q(y)). The head reads a row in which each token is the guess with
    probability ``mixing``, else the true one, and is judged where it is the guess.

    *Deviations*: ``mixing`` is 0.3 (0.85 in the paper): guesses of a one-million-parameter draft at
    neighbouring places make a text that no draft would ever read. A rejection weighs 2 (6 there).

    Args:
        draft: the loaded draft model, which stays as it is.
        reject_weight: weight of the rejected class.
        skipped_tokens: places at the start of a row (the prompt) that are not trained on.
    """

    name, taps = "specdec_pp", ("final",)

    def __init__(
        self,
        draft,
        *,
        reject_weight: float = 2.0,
        mixing: float = 0.3,
        skipped_tokens: int = 48,
    ):
        self.draft, self.reject_weight = draft, reject_weight
        self.mixing, self.skipped_tokens = mixing, skipped_tokens

    def build(self, model) -> AcceptanceHead:
        return AcceptanceHead(self.draft.network.config.get_text_config().hidden_size)

    @torch.no_grad()
    def examples(self, model, batch: Batch, generator: torch.Generator | None = None):
        """Draft states, labels and q of the guess at the places that count: ``[m d] [m] [m]``."""
        ids = batch.ids
        p = model.anatomy.logits(batch.final[:, :-1]).float().softmax(-1)
        raw = self.draft.network(ids[:, :-1]).logits
        q = fit_vocabulary(raw, p.shape[-1]).float().softmax(-1)
        guess = torch.multinomial(q.flatten(0, 1), 1, generator=generator).view_as(ids[:, 1:])
        p_guess = p.gather(-1, guess[..., None])[..., 0]
        q_guess = q.gather(-1, guess[..., None])[..., 0]
        label = (p_guess / q_guess).clamp_max(1)
        taken = torch.rand(guess.shape, generator=generator).to(ids.device) < self.mixing
        mixed = torch.cat((ids[:, :1], torch.where(taken, guess, ids[:, 1:])), 1)
        hidden = self.draft.network.base_model(mixed).last_hidden_state[:, 1:]
        taken[:, : self.skipped_tokens] = False
        return hidden[taken], label[taken], q_guess[taken]

    def loss(self, model, head: AcceptanceHead, batch: Batch) -> torch.Tensor:
        hidden, label, _ = self.examples(model, batch)
        return self.weighted(head(hidden), label)

    def weighted(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Soft cross-entropy in which a rejected place weighs ``reject_weight`` times as much."""
        logs = logits.float().log_softmax(-1)
        total = -(self.reject_weight * (1 - label) * logs[:, 0] + label * logs[:, 1]).sum()
        return total / (self.reject_weight * (1 - label) + label).sum()

    @inference_mode()
    def measure(self, model, head: AcceptanceHead, features: Features) -> dict[str, Any]:
        """Area under the ROC curve of the head and of the draft's own probability, held out."""
        scores, bare, labels = [], [], []
        generator = torch.Generator().manual_seed(3)
        for start in range(0, len(features), 16):
            batch = features.batch(range(start, min(start + 16, len(features))))
            hidden, label, q = self.examples(model, batch, generator)
            scores.append(head.accepted(hidden))
            bare.append(q)
            labels.append(torch.rand(label.shape, generator=generator) < label)
        truth = torch.cat(labels)
        return {
            "draft": self.draft.fingerprint,
            "draft_name": self.draft.name,
            "accepted_ratio": round(float(truth.float().mean()), 5),
            "auc": round(area(torch.cat(scores), truth), 5),
            "auc_of_q": round(area(torch.cat(bare), truth), 5),
        }


def area(score: torch.Tensor, truth: torch.Tensor) -> float:
    """Chance that an accepted place scores above a rejected one (ties count half)."""
    order = score.double().argsort()
    values, ranks = score.double()[order], torch.arange(1, len(score) + 1, dtype=torch.double)
    _, group, counts = values.unique_consecutive(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(counts), dtype=torch.double).index_add_(0, group, ranks) / counts
    above = mean[group][truth[order]].sum()
    n, m = int(truth.sum()), int((~truth).sum())
    return float((above - n * (n + 1) / 2) / (n * m)) if n and m else 0.5
