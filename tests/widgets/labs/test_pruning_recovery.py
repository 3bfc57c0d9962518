"""The pruning lab measures and retrains: which layers hurt, curves, recipes; one step back."""

from __future__ import annotations

import pytest
import torch
from tiny_pruning import same, settled, weights

from widgets.labs.pruning import form, work
from workbench.core.errors import BadInput
from workbench.models.calibrate import spread_rows, standard_texts
from workbench.training.importance_lora import RATE


@pytest.fixture
def lab(pruning_lab):
    return pruning_lab


def test_layers_and_curves_are_measured_and_leave_no_trace(lab):
    lab.change("ratio", 0.5)
    settled(lab)
    before = weights(lab)
    lab.harm()
    settled(lab)
    assert len(lab.sweeps.harm) == 3 and lab.settings["bars"] == form.BARS[1]
    assert lab.contents()["bars"]["data"][0]["y"][1] == pytest.approx(
        lab.sweeps.harm[1].loss_nats - lab.sweeps.dense.loss_nats
    )
    lab.curves()
    settled(lab)
    assert same(weights(lab), before)
    for name, points in lab.sweeps.curves.items():
        assert points[0].sparsity == 0 and points[0].acceptance == pytest.approx(1, abs=1e-5), name
        assert points[-1].sparsity > 0.2 and points[-1].acceptance < 1
    assert len(lab.sweeps.curves) == 7
    lab.handle("bars", {"customdata": 2})
    assert lab.settings["layer"] == 2


def test_retraining_keeps_the_zeros_and_is_one_step_back(lab):
    lab.change("ratio", 0.5)
    settled(lab)
    loss, before = lab.now.loss_nats, weights(lab)
    lab.change("steps", 10)
    lab.retrain()
    settled(lab)
    done = lab.sweeps.retrained[0].recovery
    assert lab.now.loss_nats < loss and done.zeros_before == done.zeros_after
    assert "Retrained" in lab.contents()["facts"]
    lab.undo()
    settled(lab)
    assert same(weights(lab), before)
    lab.redo()
    lab.change("ratio", 0.7)  # another mask: what was learnt under the old one is left out
    settled(lab)
    assert lab._retrained() is None and lab.full.density == pytest.approx(
        20 / 64
    )  # 44 of 64 inputs


def test_pressed_again_retraining_goes_on_and_other_recipes_build_on_it(lab):
    lab.change("pruner", "heads")
    lab.change("ratio", 0.5)
    lab.change("steps", 10)
    settled(lab)
    first, dead = weights(lab), {n: ~mask for n, mask in lab.full.weights.items()}
    losses = [lab.now.loss_nats]
    for recipe in (form.RECIPES[0], *form.RECIPES):
        lab.change("recipe", recipe)
        lab.retrain()
        settled(lab)
        losses.append(lab.now.loss_nats)
        for name, gone in dead.items():
            assert bool((lab.model.network.get_parameter(f"{name}.weight")[gone] == 0).all())
    parts = [one.recovery for one in lab.sweeps.retrained]
    assert [one.steps for one in parts] == [10, 20, 30, 10]
    assert losses[2] < losses[1] < losses[0] and losses[4] < losses[3]
    assert len(parts[2].blocks) == 3 and "30 steps" not in lab.contents()["facts"]
    assert {"variant", "norms"}.isdisjoint(f.key for s in lab.forms() for f in s.fields)
    for _ in range(9):
        lab.undo()
    lab.change("pruner", "heads")
    lab.change("ratio", 0.5)
    settled(lab)
    assert same(weights(lab), first)


def test_lora_by_importance_learns_at_its_own_rate_from_all_over_the_text(lab, monkeypatch):
    heard: list = []

    def listen(model, recipe, texts, settings, **live):
        heard.append((texts, settings))
        raise BadInput("heard")

    monkeypatch.setattr(work, "recover", listen)
    lab.change("pruner", "heads")
    lab.change("ratio", 0.5)
    lab.change("steps", 10)
    lab.change("recipe", form.RECIPES[2])
    lab.retrain()
    assert lab.worker.wait(60)
    texts, settings = heard[0]
    rows = spread_rows(lab.model, standard_texts(work.TRAINING_LETTERS), rows=80)
    assert torch.equal(texts.train, rows)
    assert (settings.learning_rate, settings.steps, settings.batch_rows) == (RATE, 10, 8)


def test_lora_by_importance_is_for_whole_parts(lab):
    lab.change("ratio", 0.5)  # magnitude
    lab.change("recipe", form.RECIPES[2])
    lab.retrain()
    assert lab.worker.wait(60) and "MaskLoRA" in lab.contents()["error"]
