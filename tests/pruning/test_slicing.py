"""Structured masks cut out: the logits stay, the checkpoint shrinks and loads anywhere."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from workbench.core.errors import BadInput, ModelError
from workbench.core.masks import MaskSet, Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.anatomy import anatomy_of
from workbench.models.load import load
from workbench.models.masking import apply_masks
from workbench.models.model import Model
from workbench.models.prune import prune
from workbench.models.slicing import save_sliced, sliced
from workbench.models.units import expanded, matrices, parts_of
from workbench.testing import checkpoints

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2")
ROWS = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(3))


def model_of(family: str) -> Model:
    network = checkpoints.tiny_network(family).requires_grad_(False)
    return Model(family, network, None, anatomy_of(network))


@torch.no_grad()
def logits(model: Model) -> torch.Tensor:
    return model.network(input_ids=ROWS, use_cache=False).logits


def parts_mask(model: Model) -> MaskSet:
    """Uneven on purpose: other neurons and groups in each layer, one layer dropped."""
    masks = MaskSet()
    for parts in parts_of(model):
        gone = [(i,) for i in range(parts.layer, 30 + parts.layer, 2)]
        masks = masks.painted(f"neurons.{parts.layer}", (parts.neurons,), gone, False)
        if parts.groups > 1:
            where = [(parts.layer % parts.groups,)]
            masks = masks.painted(f"groups.{parts.layer}", (parts.groups,), where, False)
    return masks.painted("layers", (len(parts_of(model)),), [(1,)], False)


@pytest.mark.parametrize("family", FAMILIES)
def test_sliced_and_masked_agree(family):
    model = model_of(family)
    before, masks = logits(model), parts_mask(model)
    with apply_masks(model, masks):
        masked = logits(model)
    small = sliced(model, masks)
    assert small.parameters < 0.85 * model.parameters
    assert small.network.config.tie_word_embeddings == model.network.config.tie_word_embeddings
    assert float((logits(small) - masked).abs().max()) <= 1e-5 * float(masked.abs().max())
    assert not torch.allclose(masked, before, atol=1e-3)
    assert torch.equal(logits(model), before)


def test_a_tied_head_stays_tied():
    network = checkpoints.tiny_network("llama", tie_word_embeddings=True).requires_grad_(False)
    model = Model("tied", network, None, anatomy_of(network))
    masks = MaskSet(parts={"layers": torch.tensor([True, False, True])})
    lost = sum(p.numel() for p in network.model.layers[1].parameters())
    assert sliced(model, masks).parameters == model.parameters - lost


def test_a_dropped_layer_is_the_identity():
    for family in ("llama", "gpt2", "opt", "gpt_neox", "phi3", "mixtral", "gemma2"):
        model = model_of(family)
        with apply_masks(model, MaskSet(parts={"layers": torch.tensor([True, False, True])})):
            masked = logits(model)
        network = model.network
        layers = model.anatomy.layers
        hooks = layers[1].register_forward_hook(
            lambda module, args, kwargs, out: (
                (args[0], *out[1:]) if isinstance(out, tuple) else args[0]
            ),
            with_kwargs=True,
        )
        without = network(input_ids=ROWS, use_cache=False).logits
        hooks.remove()
        assert torch.equal(masked, without.detach()), family


def test_a_slice_is_a_checkpoint_that_transformers_loads(tmp_path):
    checkpoints.write_checkpoint(tmp_path / "whole", "llama")
    model = load(str(tmp_path / "whole"))
    plan = Plan(Pattern("layer"), 0.5)
    rows = ROWS % 256
    masks = prune(model, make_method("pruner", "cfsp"), plan, rows).masks
    heads = prune(model, make_method("pruner", "heads"), plan, rows).masks
    layers = prune(model, make_method("pruner", "layers"), Plan(Pattern("global"), 0.4), rows).masks
    masks = masks.combined(heads).combined(layers)
    with apply_masks(model, masks):
        masked = logits(model)
    made = save_sliced(model, masks, tmp_path / "small")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    with torch.no_grad():
        again = plain(input_ids=ROWS, use_cache=False).logits
    assert float((again - masked).abs().max()) <= 1e-5
    assert plain.config.num_hidden_layers == 2 and plain.config.num_key_value_heads == 1
    assert load(str(tmp_path / "small")).mode == made.mode == "fused"
    with pytest.raises(BadInput, match="already holds"):
        save_sliced(model, masks, tmp_path / "small")


def test_what_cannot_be_taken_out_is_said():
    model = model_of("llama")
    name, matrix = next(iter(matrices(model).items()))
    zeros = MaskSet({name: torch.zeros(matrix.weight.shape, dtype=torch.bool)})
    with pytest.raises(BadInput, match="no whole neuron"):
        sliced(model, zeros)
    with pytest.raises(BadInput, match="every layer"):
        sliced(model, MaskSet(parts={"layers": torch.zeros(3, dtype=torch.bool)}))
    with pytest.raises(BadInput, match="2, but the network's is 3"):
        sliced(model, MaskSet(parts={"layers": torch.ones(2, dtype=torch.bool)}))


def test_a_family_whose_configuration_cannot_say_it_is_refused():
    """StableLM's head width is hidden size / heads, so fewer heads would be other heads."""
    model = model_of("stablelm")
    with pytest.raises(ModelError, match="cannot express"):
        sliced(
            model,
            MaskSet()
            .painted("groups.0", (2,), [(0,)], False)
            .painted("groups.1", (2,), [(0,)], False)
            .painted("groups.2", (2,), [(1,)], False),
        )
    neurons = MaskSet().painted("neurons.0", (64,), [(i,) for i in range(9)], False)
    with pytest.raises(BadInput, match="no whole neuron"):
        sliced(model, neurons)


def test_the_weights_behind_parts_are_counted():
    model = model_of("llama")
    full = expanded(model, MaskSet().painted("groups.0", (2,), [(1,)], False))
    assert full.weights["model.layers.0.self_attn.q_proj"].sum() == 32 * 64
    assert full.weights["model.layers.0.self_attn.o_proj"][:, :32].all()
    assert not full.weights["model.layers.0.self_attn.o_proj"][:, 32:].any()
    assert set(full.weights) == {f"model.layers.0.self_attn.{p}_proj" for p in "qkvo"}


def test_a_network_with_adapters_is_not_sliced():
    from workbench.adapters.lora import Lora
    from workbench.models.adapting import Adapters

    network = checkpoints.tiny_network("llama")
    model = Model("tiny", network, None, anatomy_of(network), mode="walk")
    adapters = Adapters(model)
    adapters.attach(Lora(r=2).config(adapters.shapes), "one")
    kept = torch.ones(3, dtype=torch.bool)
    kept[1] = False
    masks = MaskSet(parts={"layers": kept})
    with pytest.raises(BadInput, match="detach or merge"):
        sliced(model, masks)
    adapters.detach()
    assert len(sliced(model, masks).anatomy.layers) == 2
