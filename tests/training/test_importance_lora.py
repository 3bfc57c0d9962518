"""CFSP's recovery: ranks by importance, zeros that stay, a way back; what it brings."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, BadKnob, Mismatch
from workbench.core.masks import MaskSet
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.engine.dials import held_out
from workbench.models.adapting import Adapters
from workbench.models.calibrate import calibration_rows, hear, spread_rows
from workbench.models.masking import Edit
from workbench.models.prune import Pruned, prune
from workbench.models.slicing import sliced
from workbench.models.units import expanded, matrices
from workbench.testing.tiny_network import tiny_network
from workbench.training import importance_lora
from workbench.training.adapter import AdapterSettings
from workbench.training.importance_lora import (
    NAME,
    ImportanceLora,
    block_ranks,
    importance_of,
    recipe_for,
    recover,
    uniform,
)
from workbench.training.texts import Texts

ROWS = torch.randint(0, 13, (40, 24), generator=torch.Generator().manual_seed(2))
# Rows that can be learnt: each token is the one before plus one.
ROWS = (ROWS[:, :1] + torch.arange(24)) % 13
TEXTS = Texts(ROWS[:32], ROWS[32:], "counting")
SETTINGS = AdapterSettings(steps=12, measure_steps=6, measure_rows=4, learning_rate=1e-2)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.network(input_ids=ROWS[:4], use_cache=False).logits


def masked(pruner: str = "cfsp", ratio: float = 0.5):
    """A masked tiny network, the recipe for it, and the way back."""
    model = tiny_network(13, layers=3, seed=3)
    importance = importance_of(hear(model, ROWS[:8]), 3)
    made = prune(
        model, make_method("pruner", pruner), Plan(ratio=ratio, pattern=_fit(pruner)), ROWS
    )
    return model, recipe_for(model, made.masks, importance, rank=3), made.apply(model)


def _fit(pruner: str):
    from workbench.core.masks import Pattern

    return Pattern("global" if pruner == "layers" else "layer")


@pytest.mark.parametrize("importance", [(0.5, 0.1, 0.1, 0.1), (0.3, 0.3, 0.2), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_ranks_follow_the_importance_and_keep_their_mean(importance, rank):
    ranks = block_ranks(importance, rank, most=64)
    assert sum(ranks) == rank * len(importance)
    exact = [rank * len(importance) * one / sum(importance) for one in importance]
    if min(exact) >= 1:  # else the least rank of 1 is taken from the others
        assert all(abs(got - one) < 1 for got, one in zip(ranks, exact, strict=True))
    assert min(ranks) >= 1 and ranks.index(max(ranks)) == importance.index(max(importance))
    assert max(block_ranks(importance, rank, most=rank)) == rank
    for bad in (0, 65):
        with pytest.raises(BadKnob, match="rank="):
            block_ranks(importance, bad, most=64)


def test_peft_gets_these_ranks_and_the_count_is_the_formulas():
    model, recipe, _ = masked()
    adapters = Adapters(model)
    adapters.attach(recipe.config(adapters.shapes), NAME)
    ranks = recipe.ranks(adapters.shapes)
    assert len(set(ranks.values())) > 1 and len(ranks) == 21
    for path, layer in adapters.layers(NAME):
        rank = ranks[path]
        assert layer.r[NAME] == rank and layer.scaling[NAME] == 2.0
    assert adapters.parameter_count(NAME) == recipe.parameter_count(adapters.shapes)
    same = ImportanceLora(recipe.masks, uniform(recipe).importance, recipe.rank)
    assert set(same.ranks(adapters.shapes).values()) == {3}


@pytest.mark.parametrize("pruner", ["cfsp", "heads", "layers"])
def test_what_was_taken_out_stays_out_and_the_loss_falls(pruner):
    model, recipe, edit = masked(pruner, 0.6)
    before = logits(model)
    loss = held_out(model, TEXTS.held_out)[0]
    done = recover(model, recipe, TEXTS, SETTINGS)
    assert held_out(model, TEXTS.held_out)[0] < loss - 0.1
    assert done.zeros_after == done.zeros_before > 0
    for name, mask in expanded(model, recipe.masks).weights.items():
        assert bool((matrices(model)[name].weight[~mask] == 0).all()), name
    after = logits(model)
    small = sliced(model, recipe.masks)
    torch.testing.assert_close(small.network(input_ids=ROWS[:4]).logits, after, atol=1e-5, rtol=0)
    fresh, _, way = masked(pruner, 0.6)
    way.undo()
    made, back = Pruned(recipe.masks, done.weights(fresh)), Edit()
    dense = logits(fresh)
    Pruned.from_bytes(made.to_bytes()).check(fresh).apply(fresh, back)
    assert torch.equal(logits(fresh), after) and not torch.equal(after, before)
    back.undo()
    assert torch.equal(logits(fresh), dense)
    assert isinstance(edit, Edit)


def test_taking_the_adapter_off_is_exact_and_it_goes_on_where_it_stopped(tmp_path):
    model, recipe, _ = masked()
    before, heard = logits(model), []
    done = recover(
        model,
        recipe,
        TEXTS,
        SETTINGS,
        folder=tmp_path,
        listener=lambda progress: heard.append(progress.step),
        stopped=lambda: len(heard) == 5,
    )
    assert "Stopped after 5 of 12" in done.note and not torch.equal(logits(model), before)
    model, recipe, _ = masked()
    adapters = Adapters(model)
    adapters.load(tmp_path / "adapter", NAME)
    assert not torch.equal(logits(model), before)
    adapters.detach()
    assert torch.equal(logits(model), before)
    resumed = recover(model, recipe, TEXTS, SETTINGS, folder=tmp_path)
    assert [step for step, _ in resumed.curve] == list(range(1, 13)) and not resumed.note
    whole_model, recipe, _ = masked()
    recover(whole_model, recipe, TEXTS, SETTINGS)
    assert torch.equal(logits(whole_model), logits(model))


def test_what_it_cannot_recover_is_refused():
    model, recipe, _ = masked()
    single = MaskSet({"model.layers.0.mlp.up_proj": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(Mismatch, match="MaskLoRA"):
        recipe_for(model, single, recipe.importance)
    with pytest.raises(BadKnob, match="rank=99"):
        recover(model, ImportanceLora(recipe.masks, recipe.importance, 99), TEXTS, SETTINGS)
    adapters = Adapters(model)
    adapters.attach(recipe.config(adapters.shapes), NAME)
    with pytest.raises(BadInput, match="adapters on it"):
        recover(model, recipe, TEXTS, SETTINGS)
    adapters.detach()


def test_its_own_rate_is_the_default(monkeypatch):
    class Heard(Exception):
        pass

    def train(*given):
        raise Heard(given[4])

    monkeypatch.setattr(importance_lora, "train_adapter", train)
    model, recipe, _ = masked()
    with pytest.raises(Heard) as heard:
        recover(model, recipe, TEXTS)
    assert heard.value.args[0] == AdapterSettings(learning_rate=importance_lora.RATE)
    assert importance_lora.RATE != AdapterSettings().learning_rate
    assert not any(name.endswith(".base_layer") for name, _ in model.network.named_modules())


def test_rows_to_train_on_are_from_all_over_the_texts(loaded):
    model = loaded("llama")
    texts = [f"name_{index} = {index}\n" * 60 for index in range(6)]
    rows = spread_rows(model, texts, row_tokens=24, rows=24)
    assert rows.shape == (24, 24) and len(rows.unique(dim=0)) > 6
    said = [model.decode(row.tolist()) for row in rows]
    assert all(any(f"name_{index}" in one for one in said) for index in range(6))
    near = calibration_rows(model, texts, row_tokens=24, rows=24)
    assert not any("name_5" in model.decode(row.tolist()) for row in near)
    assert torch.equal(rows, spread_rows(model, texts, row_tokens=24, rows=24))
    assert not torch.equal(rows, spread_rows(model, texts, row_tokens=24, rows=24, seed=1))
    few = ["x = 1\n" * 12]
    assert torch.equal(
        spread_rows(model, few, row_tokens=24, rows=9),
        calibration_rows(model, few, row_tokens=24, rows=9),
    )
