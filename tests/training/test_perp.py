"""Retraining after pruning: zeros stay, merges are exact, only the chosen numbers move."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, BadKnob
from workbench.core.masks import MaskSet, Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.load import load
from workbench.models.masking import Edit, apply_masks
from workbench.models.prune import Pruned, prune
from workbench.models.units import matrices
from workbench.testing.tiny_network import tiny_network
from workbench.training.perp import PerpSettings, Recovery, norms_of, perp, updated

ROWS = torch.randint(0, 13, (16, 32), generator=torch.Generator().manual_seed(2))
KEEPING = ("lora_prune", "scale_lora", "mask_lora", "full")


def pruned_tiny(ratio: float = 0.6):
    model = tiny_network(13, layers=2)
    made = prune(model, make_method("pruner", "magnitude"), Plan(Pattern("layer"), ratio))
    made.apply(model)
    return model, made.masks


@torch.no_grad()
def logits(model, rows=ROWS) -> torch.Tensor:
    return model.network(input_ids=rows, use_cache=False).logits


def trained(variant: str, **settings):
    model, masks = pruned_tiny()
    chosen = PerpSettings(variant=variant, rank=2, steps=6, learning_rate=1e-2, **settings)
    return model, masks, perp(model, masks, ROWS, chosen)


@pytest.mark.parametrize("variant", ["lora", *KEEPING])
def test_nothing_changes_before_the_first_step(variant):
    model, masks = pruned_tiny()
    before = logits(model)
    with updated(model, masks, PerpSettings(variant=variant, rank=3)):
        now = logits(model)
    if variant == "scale_lora":  # r (1/sqrt r)^2 is 1 only to rounding
        assert torch.allclose(now, before, atol=1e-5)
    else:
        assert torch.equal(now, before) and torch.equal(logits(model), before)


@pytest.mark.parametrize("variant", KEEPING)
def test_the_zeros_stay_where_they_were(variant):
    model, masks, done = trained(variant)
    for name, mask in masks.weights.items():
        assert bool((matrices(model)[name].weight[~mask] == 0).all()), name
    assert done.zeros_before == done.zeros_after > 0
    assert done.curve[-1][1] < done.curve[0][1]


def test_plain_lora_fills_them_and_says_so():
    _, _, done = trained("lora")
    assert done.zeros_after < 0.01 * done.zeros_before


@pytest.mark.parametrize(
    "variant, exact", [("mask_lora", True), ("scale_lora", True), ("lora_prune", False)]
)
def test_merging(variant, exact):
    model, masks = pruned_tiny()
    with updated(model, masks, PerpSettings(variant=variant, rank=2)) as chosen:
        with torch.no_grad():
            for index, number in enumerate(chosen):
                generator = torch.Generator().manual_seed(index)
                noise = torch.randn(number.shape, generator=generator, dtype=number.dtype)
                number.add_(0.1 * noise)
        unmerged = logits(model)
    gap = float((logits(model) - unmerged).abs().max())
    assert gap <= 1e-5 if exact else gap > 1e-3


def test_only_what_was_chosen_moves_and_the_count_is_the_formulas():
    model, masks = pruned_tiny()
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    done = perp(model, masks, ROWS, PerpSettings(variant="none", steps=4))
    norms = norms_of(model.network)
    assert done.trainable == (2 * 2 + 1) * 16 and done.tensors.keys() == norms.keys()
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name]) or name in norms
    model, masks = pruned_tiny()
    done = perp(model, masks, ROWS, PerpSettings(norms=False, rank=3, steps=2))
    shapes = [one.weight.shape for one in matrices(model).values()]
    assert done.trainable == sum(3 * (out + wide) for out, wide in shapes)
    assert not any(p.requires_grad for p in model.network.parameters())


def test_what_was_learnt_can_be_put_back_and_taken_off():
    model, masks, done = trained("mask_lora")
    after, fresh = logits(model), pruned_tiny()[0]
    before = logits(fresh)
    edit = Edit()
    Pruned(masks, done.weights(fresh)).apply(fresh, edit)
    assert torch.equal(logits(fresh), after)
    edit.undo()
    assert torch.equal(logits(fresh), before)
    assert isinstance(done, Recovery) and masks.density < 0.5


def test_undo_after_training_finds_the_weights_where_they_were():
    model, masks = pruned_tiny()
    before, edit = logits(model), Edit()
    for number in model.network.parameters():
        edit.keep(number.detach())
    perp(model, masks, ROWS, PerpSettings(steps=3))
    assert not torch.equal(logits(model), before)
    edit.undo()
    assert torch.equal(logits(model), before)


def test_stopping_keeps_what_is_there_and_divergence_ends_it():
    model, masks = pruned_tiny()
    heard: list[int] = []
    done = perp(
        model,
        masks,
        ROWS,
        PerpSettings(steps=50),
        listener=lambda step, steps, loss: heard.append(step),
        stopped=lambda: len(heard) >= 2,
    )
    assert heard == [1, 2, 3][: len(heard)] and "Stopped after" in done.note
    model, masks = pruned_tiny()
    wild = perp(model, masks, ROWS, PerpSettings(variant="full", steps=60, learning_rate=30.0))
    assert "diverges" in wild.note and len(wild.curve) < 60


@pytest.mark.parametrize("variant", ["mask_lora", "full"])
def test_going_on_takes_up_the_numbers_and_the_moments(variant):
    model, masks, done = trained(variant)
    after = logits(model)
    still = PerpSettings(variant=variant, rank=2, steps=2, learning_rate=1e-12)
    more = perp(model, masks, ROWS, still, going_on=done)
    assert torch.allclose(logits(model), after, atol=1e-5)  # it begins where the first part ended
    assert [step for step, _ in more.curve] == list(range(1, 9)) and more.steps == 8
    assert {float(one["step"]) for one in more.state.moments.values()} == {8.0}
    assert all(bool(one["exp_avg_sq"].any()) for one in more.state.moments.values())
    settings = PerpSettings(variant=variant, rank=2, steps=6, learning_rate=1e-2)
    again = perp(model, masks, ROWS, settings, going_on=more)
    assert again.curve[-1][1] < done.curve[-1][1] and again.steps == 14
    assert again.zeros_after == again.zeros_before == done.zeros_before
    for name, mask in masks.weights.items():
        assert bool((matrices(model)[name].weight[~mask] == 0).all()), name
    now, fresh = logits(model), pruned_tiny()[0]  # what changed is what the pruned network lacks
    Pruned(masks, again.weights(fresh)).apply(fresh)
    assert torch.equal(logits(fresh), now)
    with pytest.raises(BadKnob, match="begin anew"):
        perp(model, masks, ROWS, PerpSettings(variant="scale_lora"), going_on=again)


def test_one_step_of_going_on_is_adams_by_hand():
    """Both moments after one more step belong to one gradient and to what the first part left."""
    model, masks, done = trained("none")
    rate = PerpSettings(variant="none", steps=1, learning_rate=1e-2, batch_rows=16)
    moments = {k: {n: v.clone() for n, v in one.items()} for k, one in done.state.moments.items()}
    more = perp(model, masks, ROWS, rate, going_on=done)
    for index, first in moments.items():
        now = more.state.moments[index]
        gradient = (now["exp_avg"] - 0.9 * first["exp_avg"]) / 0.1
        square = 0.999 * first["exp_avg_sq"] + 0.001 * gradient.square()
        assert torch.allclose(square, now["exp_avg_sq"], rtol=1e-3, atol=1e-12)


def test_bad_settings_and_too_little_text():
    for settings in ({"variant": "lorra"}, {"variant": "none", "norms": False}, {"rank": 0}):
        with pytest.raises(BadKnob):
            PerpSettings(**settings)
    model, masks = pruned_tiny()
    for rows in (ROWS[:0], ROWS[:, :4]):
        with pytest.raises(BadInput, match="training text"):
            perp(model, masks, rows)


@pytest.mark.slow
def test_the_order_of_the_variants_on_trained_weights():
    """Pruned > norms > MaskLoRA, and norms alone bring back half of what full retraining does."""
    from workbench.models.calibrate import calibration_rows, standard_texts
    from workbench.zoo.held_out import prompts

    model = load("zoo:draft")
    held = calibration_rows(model, [p.text for p in prompts()])
    text = calibration_rows(model, standard_texts(400_000), rows=320)
    masks = prune(model, make_method("pruner", "magnitude"), Plan(Pattern("layer"), 0.7)).masks

    @torch.no_grad()
    def loss() -> float:
        flat = logits(model, held)[:, :-1].flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(flat, held[:, 1:].flatten()))

    found = {"dense": loss()}
    for name, settings in {
        "pruned": None,
        "norms": PerpSettings(variant="none", steps=30),
        "mask_lora": PerpSettings(steps=30),
        "full": PerpSettings(variant="full", steps=30),
    }.items():
        with apply_masks(model, MaskSet(masks.weights)) as edit:
            for number in model.network.parameters():
                edit.keep(number.detach())
            if settings is not None:
                perp(model, masks, text, settings)
            found[name] = loss()
    assert found["pruned"] > found["norms"] > found["mask_lora"] >= found["full"] - 0.05
    assert found["pruned"] - found["norms"] > 0.4 * (found["pruned"] - found["full"])
