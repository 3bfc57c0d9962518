"""A prefix in the adapter lab: trained, weighed, swept, put beside a LoRA, saved and opened."""

from __future__ import annotations

import pytest
import torch

from widgets.labs.adapters.controller import AdapterLab
from workbench.models.load import load

IDS = torch.arange(40, 72)[None]


@pytest.fixture
def lab(checkpoint, tmp_path):
    target = load(str(checkpoint("llama", max_position_embeddings=512)))
    changes = {"seed": 1, "num_hidden_layers": 1, "max_position_embeddings": 512}
    (tmp_path / "a.txt").write_text("\n".join(f"row {n} of a table: {n * n}" for n in range(300)))
    made = AdapterLab(target, load(str(checkpoint("llama", **changes))), measure_steps=2)
    made.texts = lambda: ["a table: 12\n" * 30]
    made.warm()
    assert not settle(made)
    short = {"data": "folder", "folder": str(tmp_path), "steps": 4, "rows": 2}
    assert all(made.change(key, value) for key, value in short.items())
    yield made
    made.close()


def settle(lab) -> str:
    assert lab.worker.wait(120)
    return lab._error


def logits(lab) -> torch.Tensor:
    with torch.inference_mode():
        return lab.model.network(input_ids=IDS, use_cache=False).logits


def test_a_prefix_goes_through_the_lab(lab, tmp_path):
    base = logits(lab)
    assert lab.change("method", "prefix") and lab.change("adapter.prefix.tokens", 4)
    lab.train()
    assert not settle(lab) and lab.settings["first"] == "prefix_1"
    full = logits(lab)
    assert not torch.equal(full, base) and lab.now.loss_nats != lab.before.loss_nats
    assert "Virtual tokens change no weight" in lab.contents()["facts"]
    assert set(lab.entry("first").spectrum[0]) == {"virtual keys", "virtual values"}
    lab.change("strength", 0.5)
    assert not settle(lab) and not torch.equal(logits(lab), full)
    lab.change("strength", 1.0)
    assert not settle(lab) and torch.equal(logits(lab), full)
    lab.sweep()
    assert not settle(lab)
    assert [s for s, _ in lab.sweeps["adapted target, plain draft"]][-1] == 1.5
    lab.change("layer_factor", 0.5)
    assert "alike in all layers" in settle(lab)
    lab.undo()
    assert not settle(lab) and torch.equal(logits(lab), full)
    lab.change("path", str(tmp_path / "saved"))
    lab.save()
    assert not settle(lab)
    lab.open_folder()
    assert not settle(lab) and lab.settings["first"] == "saved_1"
    assert torch.equal(logits(lab), full)
    lab.combine()
    settle(lab)
    lab.reset()
    assert not settle(lab) and torch.equal(logits(lab), base)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING"])
def test_pefts_other_virtual_tokens_are_chosen_by_name(lab, kind):
    for key, value in {"method": "peft", "peft_type": kind}.items():
        assert lab.change(key, value)
    assert lab.change(f"peft.{kind}.num_virtual_tokens", 3)
    lab.train()
    assert not settle(lab)
    first = lab.entry("first")
    assert first.kind == kind and first.config.num_virtual_tokens == 3
