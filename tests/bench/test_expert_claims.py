"""Claims about mixtures: pairs of the right kind, whatever the numbers come out as."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.bench import expert_claims
from workbench.training.moe_finetune import MixtureSettings


@pytest.fixture
def quick(monkeypatch):
    for name, value in (("ROW_TOKENS", 24), ("TRAINED_ROWS", 8), ("PAIRS", 4), ("CAPACITY", 2)):
        monkeypatch.setattr(expert_claims, name, value)
    monkeypatch.setattr(expert_claims, "SETTINGS", MixtureSettings(steps=2, batch_rows=4))


def test_every_method_has_rows_with_a_verdict(loaded, quick):
    told: list[str] = []
    rows = expert_claims.rows(told.append, loaded("qwen3_moe", num_experts=8))
    assert {row["method"] for row in rows} == {"top_p", "recurrent", "expertflow"}
    assert len(told) == 3
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"] and row["pairs"] == 4
        assert bool(row["because"]) == (row["verdict"] != "holds")
        assert row["difference"] == pytest.approx(row["first"] - row["second"], abs=2e-4)


def test_training_and_measuring_see_other_files(loaded, quick):
    model = loaded("qwen3_moe", num_experts=8)
    train, held = (expert_claims.corpus_rows(model, part, 8) for part in ("train", "held_out"))
    assert train.shape == held.shape == (8, 24) and not torch.equal(train, held)
    assert torch.equal(train, expert_claims.corpus_rows(model, "train", 8))
    assert len(np.unique(expert_claims.losses(model, held))) > 1
