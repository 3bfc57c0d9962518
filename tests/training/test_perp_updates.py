"""PERP's updates by their formulas, what they may move, and the optimiser that moves it."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import Mismatch
from workbench.core.masks import MaskSet, Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.anatomy import anatomy_of
from workbench.models.load import load
from workbench.models.masking import apply_masks
from workbench.models.model import Model
from workbench.models.prune import prune
from workbench.models.units import matrices
from workbench.testing import checkpoints
from workbench.testing.tiny_network import tiny_network
from workbench.training import perp as perp_module
from workbench.training import reconstruction
from workbench.training.perp import PerpSettings, norms_of, perp, updated
from workbench.training.reconstruction import reconstruct

ROWS = torch.randint(0, 13, (16, 32), generator=torch.Generator().manual_seed(2))
NAME = "model.layers.0.mlp.up_proj"
KEEPING = ("lora_prune", "scale_lora", "mask_lora", "full")


def pruned_tiny(layers: int = 2):
    model = tiny_network(13, layers=layers)
    made = prune(model, make_method("pruner", "magnitude"), Plan(Pattern("layer"), 0.6))
    made.apply(model)
    return model, made.masks


FORMULAS = {  # (while it trains, once it is merged), with alpha / r = 2
    "lora": (lambda w, m, ba: w + 2 * ba, lambda w, m, ba: w + 2 * ba),
    "lora_prune": (lambda w, m, ba: w + 2 * ba, lambda w, m, ba: w + 2 * m * ba),
    "mask_lora": (lambda w, m, ba: w + 2 * m * ba, lambda w, m, ba: w + 2 * m * ba),
    "scale_lora": (lambda w, m, ba: w * ba, lambda w, m, ba: w * ba),
}


@pytest.mark.parametrize("variant", FORMULAS)
@pytest.mark.parametrize("rank", [1, 5])
def test_an_update_is_its_formula_before_and_after_its_merge(variant, rank):
    model, masks = pruned_tiny()
    one, mask = matrices(model)[NAME], masks.weights[NAME].double()
    w, generator = one.weight.clone(), torch.Generator().manual_seed(3)
    with updated(model, masks, PerpSettings(variant=variant, rank=rank)):
        parts = one.module.parametrizations.weight[0]
        assert parts.a.shape == (rank, 16) and parts.b.shape == (24, rank)
        start = rank**-0.5 if variant == "scale_lora" else 0.0
        assert bool(((parts.b - start).abs() < 1e-7).all()) and bool(parts.a.any())
        with torch.no_grad():
            for part in (parts.a, parts.b):
                part.copy_(torch.randn(part.shape, generator=generator, dtype=part.dtype))
            ba, now = parts.b @ parts.a, one.module.weight.detach().clone()
    training, merged = FORMULAS[variant]
    torch.testing.assert_close(now, training(w, mask, ba), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        matrices(model)[NAME].weight, merged(w, mask, ba), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("variant", KEEPING)
def test_a_variant_learns_without_the_norms_and_leaves_the_rest_alone(variant):
    model, masks = pruned_tiny()
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    settings = PerpSettings(norms=False, variant=variant, rank=2, steps=12, learning_rate=1e-2)
    done = perp(model, masks, ROWS, settings)
    assert done.curve[-1][1] < done.curve[0][1] - 0.01
    inside = {f"{name}.weight" for name in matrices(model)}
    assert done.tensors.keys() == inside
    for name, value in model.network.named_parameters():
        assert name in inside or torch.equal(value, before[name]), name


@pytest.mark.parametrize("variant", ["mask_lora", "full"])
def test_a_kept_zero_may_learn_and_an_unmasked_matrix_too(variant):
    """The mask is the mask: what is zero by chance was not pruned."""
    model, masks = pruned_tiny()
    zero = tuple(masks.weights[NAME].nonzero()[0].tolist())
    other = "model.layers.1.mlp.up_proj"
    fewer = MaskSet({name: mask for name, mask in masks.weights.items() if name != other})
    gone = ~masks.weights[other]
    with torch.no_grad():
        matrices(model)[NAME].weight[zero] = 0
    perp(model, fewer, ROWS, PerpSettings(variant=variant, steps=4, learning_rate=1e-2))
    assert matrices(model)[NAME].weight[zero] != 0
    assert bool((matrices(model)[NAME].weight[~masks.weights[NAME]] == 0).all())
    assert bool((matrices(model)[other].weight[gone] != 0).any())


def heard_rates(monkeypatch, module) -> list:
    """AdamW under watch: its settings at every step."""
    seen: list = []

    class Heard(torch.optim.AdamW):
        def step(self, *given, **more):
            (group,) = self.param_groups
            seen.append((group["lr"], group["weight_decay"]))
            return super().step(*given, **more)

    monkeypatch.setattr(module.torch.optim, "AdamW", Heard)
    return seen


def test_text_is_learnt_with_a_tenth_of_warm_up_a_linear_decay_and_no_weight_decay(monkeypatch):
    seen = heard_rates(monkeypatch, perp_module)
    model, masks = pruned_tiny(1)
    perp(model, masks, ROWS[:, :12], PerpSettings(steps=20, variant="none"))
    wanted = [2e-2 * min(step / 2, (20 - step) / 18) for step in range(20)]
    assert [rate for rate, _ in seen] == pytest.approx(wanted)
    assert {decay for _, decay in seen} == {0.0}
    rates = {"none": 2e-2, "full": 1e-3, "mask_lora": 3e-3, "lora": 3e-3, "lora_prune": 3e-3}
    for variant, rate in (rates | {"scale_lora": 3e-4}).items():
        assert PerpSettings(variant=variant).rate == rate
    usual = PerpSettings()
    assert (usual.rank, usual.batch_rows, usual.variant, usual.norms) == (8, 8, "mask_lora", True)


def test_blocks_are_fitted_in_fifty_steps_at_a_rate_of_their_own(monkeypatch):
    seen = heard_rates(monkeypatch, reconstruction)
    model, masks = pruned_tiny(1)
    done = reconstruct(model, tiny_network(13, layers=1), masks, ROWS)
    assert len(done.curve) == len(seen) == 50
    wanted = [1e-3 * min((step + 1) / 5, (50 - step) / 45) for step in range(50)]
    assert [rate for rate, _ in seen] == pytest.approx(wanted)
    assert {decay for _, decay in seen} == {0.0}


@pytest.mark.parametrize("steps", [1, 2])
def test_the_only_step_of_a_training_moves_something(steps):
    """A warm-up of one step would begin, and end, at a rate of zero."""
    model, masks = pruned_tiny(1)
    assert perp(model, masks, ROWS, PerpSettings(steps=steps, variant="none")).tensors


def test_every_familys_norms_are_found():
    """Vectors of a block that are no linear layer's bias; families name their classes anew."""
    for family in checkpoints.FAMILIES:
        network = checkpoints.tiny_network(family, num_hidden_layers=1)
        linear = {
            f"{name}.bias"
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
        }
        vectors = {n for n, p in network.named_parameters() if p.dim() == 1} - linear
        assert norms_of(network).keys() == vectors, family


def test_the_embedded_target_has_5440_gains():
    found = norms_of(load("zoo:target").network)
    assert sum(gain.numel() for gain in found.values()) == (2 * 8 + 1) * 320 == 5440


def test_a_family_without_linear_layers_says_so_instead_of_training_the_norms_alone():
    network = checkpoints.tiny_network("gpt2", num_hidden_layers=1).requires_grad_(False)
    model = Model("gpt2", network, None, anatomy_of(network))
    rows = ROWS.clone()
    with apply_masks(model, MaskSet()):
        with pytest.raises(Mismatch, match="variant='none'"):
            perp(model, MaskSet(), rows, PerpSettings(steps=2))
        done = perp(model, MaskSet(), rows, PerpSettings(variant="none", steps=2))
    assert done.tensors.keys() == norms_of(network).keys()
    assert not any(number.requires_grad for number in network.parameters())
