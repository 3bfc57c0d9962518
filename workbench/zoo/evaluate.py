"""How good an embedded model is: held-out loss by exit, and the bigram floor to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from workbench.zoo.corpus import TokenisedCorpus
from workbench.zoo.train import exit_hiddens


@torch.no_grad()
def held_out_losses(
    model, corpus: TokenisedCorpus, part: str = "held_out", most_tokens: int = 200_000
) -> dict:
    """Loss in nats a token of every exit, and the top-1 rate, on the part's first tokens."""
    device = next(model.parameters()).device
    last = len(model.model.layers) - 1
    stream = torch.from_numpy(np.concatenate(corpus.parts[part])[:most_tokens].astype(np.int64))
    length = min(256, len(stream) - 1)
    rows = stream[: (len(stream) - 1) // length * length + 1].unfold(0, length + 1, length)
    exits = set(range(last + 1))
    sums, hits, count = dict.fromkeys(exits, 0.0), 0, 0
    model.eval()
    for chunk in rows.split(32):
        ids, targets = chunk[:, :-1].to(device), chunk[:, 1:].to(device)
        for index, hidden in exit_hiddens(model, ids, set(), exits).items():
            logits = model.lm_head(hidden).float()
            sums[index] += F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="sum"
            ).item()
            if index == last:
                hits += (logits.argmax(-1) == targets).sum().item()
        count += targets.numel()
    return {
        "held_out_loss": sums[last] / count,
        "held_out_top1": hits / count,
        "exit_losses": [sums[index] / count for index in sorted(exits)],
        "held_out_tokens": count,
    }


def bigram_loss(corpus: TokenisedCorpus, vocabulary: int) -> float:
    """Held-out loss in nats of an interpolated bigram model counted on the training part.

    The order-0 law smooths the bigram (weight 1 for each of its distinct successors, Witten-Bell).
    A target must beat this, a draft should lie between this and the target.
    """
    stream = np.concatenate(corpus.parts["train"]).astype(np.int64)
    pairs, counts = np.unique(stream[:-1] * vocabulary + stream[1:], return_counts=True)
    first = pairs // vocabulary
    seen = np.bincount(first, counts, vocabulary)
    distinct = np.bincount(first, minlength=vocabulary)
    unigram = (np.bincount(stream, minlength=vocabulary) + 1.0) / (len(stream) + vocabulary)
    test = np.concatenate(corpus.parts["held_out"]).astype(np.int64)
    before, after = test[:-1], test[1:]
    place = np.searchsorted(pairs, before * vocabulary + after).clip(max=len(pairs) - 1)
    hits = np.where(pairs[place] == before * vocabulary + after, counts[place], 0)
    law = hits + distinct[before] * unigram[after]
    total = seen[before] + distinct[before]
    mixed = np.where(total > 0, law / np.maximum(total, 1), unigram[after])
    return float(-np.log(mixed).mean())
