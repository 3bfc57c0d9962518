"""The four dials against slow references."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core.errors import BadInput, Mismatch
from workbench.core.sampling import Sampling
from workbench.engine.dials import held_out, measure_dials, weight_bytes, yardstick

TEXTS = ["def push(self, item):\n    self.items.append(item)\n", "for key in keys: pass " * 9]


@pytest.fixture(scope="module")
def models(loaded):
    return loaded("llama"), loaded("llama", seed=5)


def slow_logits(model, row) -> torch.Tensor:
    """One forward for each place: ``[t-1 v]``."""
    with torch.inference_mode():
        return torch.stack(
            [model.network(input_ids=row[None, : i + 1]).logits[0, -1] for i in range(len(row) - 1)]
        )


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_loss_and_acceptance_are_those_of_one_place_after_another(models, temperature):
    target, draft = models
    rows = yardstick(target, TEXTS, row_tokens=12, most_tokens=40).rows
    assert rows.shape == (3, 12)
    losses, overlaps, hits = [], [], []
    for row in rows:
        p_logits, q_logits = slow_logits(target, row), slow_logits(draft, row)
        law = p_logits.softmax(-1)
        losses += [-math.log(law[i, row[i + 1]]) for i in range(len(row) - 1)]
        hits += (p_logits.argmax(-1) == row[1:]).tolist()
        if temperature:
            p, q = (p_logits / temperature).softmax(-1), (q_logits / temperature).softmax(-1)
            overlaps += torch.minimum(p, q).sum(-1).tolist()
        else:
            overlaps += (p_logits.argmax(-1) == q_logits.argmax(-1)).float().tolist()
    loss, top1, acceptance = held_out(target, rows, draft, temperature)
    assert loss == pytest.approx(sum(losses) / 33, abs=1e-4)
    assert top1 == pytest.approx(sum(hits) / 33)
    assert acceptance == pytest.approx(sum(overlaps) / 33, abs=1e-4)


def test_a_model_accepts_all_of_itself(models):
    rows = yardstick(models[0], TEXTS, row_tokens=16, most_tokens=64).rows
    assert held_out(models[0], rows, models[0], 0.8)[2] == pytest.approx(1.0, abs=1e-5)


def test_a_padded_draft_is_compared_on_what_both_know(models, loaded):
    target = models[0]
    padded = loaded("llama", vocab_size=300)
    rows = yardstick(target, TEXTS, row_tokens=16, most_tokens=64).rows
    one = held_out(target, rows, padded, 1.0)[2]
    other = held_out(padded, rows, target, 1.0)[2]
    assert one == pytest.approx(other, abs=1e-5) and 0 < one < 1


def test_bytes_count_shared_tensors_once(loaded):
    tied, apart = loaded("llama", tie_word_embeddings=True), loaded("llama")
    gap = apart.network.lm_head.weight.numel() * 4
    assert weight_bytes(apart) - weight_bytes(tied) == gap
    parameters = sum(p.numel() * 4 for p in apart.network.parameters())
    assert parameters <= weight_bytes(apart) < parameters + 4096


def test_runs_give_speed_and_emitted_tokens(models):
    target, draft = models
    stick = yardstick(target, TEXTS, prompts=tuple(TEXTS), new_tokens=6, most_tokens=64)
    dials = measure_dials(target, stick, draft)
    assert dials.tokens_per_s > 0 and 1 <= dials.emitted_tokens <= 6
    again = measure_dials(target, stick, draft)
    assert (again.loss_nats, again.emitted_tokens) == (dials.loss_nats, dials.emitted_tokens)


def test_without_a_draft_there_is_no_acceptance(models):
    sampling = Sampling(0.5, seed=3)
    stick = yardstick(
        models[0],
        TEXTS,
        prompts=("abab",),
        drafter="prompt_lookup",
        sampling=sampling,
        new_tokens=4,
    )
    dials = measure_dials(models[0], stick)
    assert dials.acceptance_ratio is None and dials.tokens_per_s > 0
    with pytest.raises(Mismatch, match="needs a draft model"):
        measure_dials(models[0], yardstick(models[0], TEXTS, prompts=("a",)))


@pytest.mark.parametrize("texts", [[], ["", ""], ["a"]])
def test_too_little_text_is_refused(models, texts):
    with pytest.raises(BadInput, match="two or more"):
        yardstick(models[0], texts)


def test_progress_reaches_the_end_of_each_part(models):
    seen = []
    stick = yardstick(models[0], TEXTS, prompts=("ab",), new_tokens=2, most_tokens=300)
    measure_dials(models[0], stick, models[1], progress=lambda *told: seen.append(told))
    assert [told for told in seen if told[1] == 1.0] == [
        ("Measuring the held-out loss", 1.0),
        ("Decoding", 1.0),
    ]
