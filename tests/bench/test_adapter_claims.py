"""The adapter claims: complete rows, paired over the same rows, and a target that is left whole."""

import pytest
import torch

from workbench.bench import adapter_claims
from workbench.bench.adapter_claims import HELD_ROWS, _Bench

KEYS = {"method", "says", "unit", "first", "second", "difference", "low", "high", "verdict"}


@pytest.fixture(autouse=True)
def two_seeds(monkeypatch):
    monkeypatch.setattr(adapter_claims, "SEEDS", 2)


def test_rows_are_complete_and_the_target_is_left_as_it_was():
    bench = _Bench(lambda line: None, steps=2)
    before = {key: value.clone() for key, value in bench.model.network.state_dict().items()}
    rows = adapter_claims._lora(bench) + adapter_claims._compeft(bench)
    for row in rows:
        assert set(row) >= {*KEYS, "because"}
        assert row["pairs"] == HELD_ROWS and row["low"] <= row["difference"] <= row["high"]
        assert bool(row["because"]) == (row["verdict"] != "holds")
    assert [row["method"] for row in rows] == ["lora", "compeft"]
    assert bench.adapters.names == ()
    after = bench.model.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_equal_trainings_are_done_once():
    said = []
    bench = _Bench(said.append, steps=1)
    first = bench.trained("ia3", rate=1e-2)
    assert bench.trained("ia3", rate=1e-2) is first and len(said) == 1
    assert bench.trained("ia3", rate=2e-2) is not first


def test_another_seed_is_another_training():
    bench = _Bench(lambda line: None, steps=1)
    first, second = (bench.trained("lora", r=2, seed=seed) for seed in (0, 1))
    same = [torch.equal(first.start[key], second.start[key]) for key in first.start if "A" in key]
    assert same and not any(same)
    assert len(bench.by_seed("lora", r=2)) == 2
    assert bench.trained("lora", r=2, seed=1) is second
