"""What peft's tuners and ours owe a user of plain peft: counts, first values, a whole life."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import IDS, attach, logits, move
from peft import convert_to_lora, get_peft_model, set_peft_model_state_dict

from workbench.core.adapter import TargetShape
from workbench.core.errors import Mismatch
from workbench.core.method import make_method
from workbench.models.adapter_forms import peft_config
from workbench.models.adapting import Adapters
from workbench.models.updates import deltas
from workbench.testing.checkpoints import tiny_network as family_network
from workbench.testing.tiny_network import RuledModel, tiny_network

WIDTH, INNER, LAYERS = 320, 864, 8
SHAPES = [
    TargetShape(f"model.layers.{layer}.{name}", layer, *size)
    for layer in range(LAYERS)
    for name, size in {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (WIDTH, WIDTH),
        "self_attn.v_proj": (WIDTH, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (WIDTH, INNER),
        "mlp.up_proj": (WIDTH, INNER),
        "mlp.down_proj": (INNER, WIDTH),
    }.items()
]
COUNTS = [
    ("lora", {"r": 8}, 81_920),
    ("ia3", {}, 12_032),
    ("prefix", {"tokens": 8}, 40_960),
    ("mola", {"r": 8, "experts": "2,4,6,8"}, 435_200),
    ("increlora", {"most": 8}, 82_048),
]


@pytest.mark.parametrize(("name", "knobs", "count"), COUNTS)
def test_parameters_at_width_320_and_eight_layers(name, knobs, count):
    assert make_method("adapter", name, **knobs).parameter_count(SHAPES) == count


def test_lora_is_alpha_by_r_times_the_product(adapters):
    for knobs, factor in (({"alpha": 12.0}, 3.0), ({"alpha": 12.0, "rslora": True}, 6.0)):
        attach(adapters, "a", r=4, dropout=0.25, **knobs)
        state = adapters.state("a")
        for path, change in deltas(adapters, "a").items():
            a, b = (state[f"base_model.model.{path}.lora_{part}.weight"] for part in "AB")
            assert torch.allclose(change, factor * b @ a)
        assert {layer.lora_dropout["a"].p for _, layer in adapters.layers("a")} == {0.25}
        adapters.detach()


def test_attaching_draws_by_its_seed_alone(adapters):
    before, found = torch.random.get_rng_state(), []
    for name in ("lora", "mola", "increlora", "prefix"):
        method = make_method("adapter", name, **({"r": 4} if name == "lora" else {}))
        for seed in (0, 0, 1):
            adapters.attach(method.config(adapters.shapes), "x", seed=seed)
            found.append(torch.cat([v.flatten() for v in adapters.state("x").values()]))
            adapters.detach()
        once, again, other = found[-3:]
        assert torch.equal(once, again) and not torch.equal(once, other), name
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("feedforward", [False, True])
def test_ia3_on_matrices_with_a_bias(feedforward):
    """What it does to the bias is no change of the weight."""
    network = family_network("gpt_neox", vocab_size=16).requires_grad_(False)
    adapters = Adapters(RuledModel("gpt_neox", network, None))
    attach(adapters, "i", "ia3", feedforward=feedforward)
    weights = {path: layer.get_base_layer().weight for path, layer in adapters.layers("i")}
    factors = adapters.state("i")
    assert any("dense_4h_to_h" in path for path in weights) == feedforward
    for path, change in deltas(adapters, "i").items():
        factor = factors[f"base_model.model.{path}.ia3_l"]
        assert torch.allclose(change, (factor - 1) * weights[path], atol=1e-5), path


@torch.no_grad()
def said(model) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


@torch.no_grad()
def put_noise(model) -> None:
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if ".default" in name:
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.add_(0.3 * noise)


def in_plain_peft(kind: str, **values):
    """A peft model of plain peft with one adapter that does something, and the base's logits."""
    network = tiny_network(5, layers=3, seed=4).network
    base = said(network)
    config = peft_config(kind, target_modules=["q_proj", "v_proj"], **values)
    model = get_peft_model(network, config, autocast_adapter_dtype=False).eval()
    assert torch.equal(said(model), base)
    put_noise(model)
    return model, config, base


@pytest.mark.parametrize(
    ("kind", "values"),
    [("GROWING", {"r": 2, "most": 4}), ("MOLA", {"r": 2, "experts": [3], "top_k": 2})],
)
def test_a_second_adapter_switches_comes_and_goes(kind, values):
    model, config, base = in_plain_peft(kind, **values)
    moved = said(model)
    assert (moved - base).abs().max() > 1e-3
    model.add_adapter("second", config)
    model.set_adapter("second")
    assert torch.equal(said(model), base)
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trainable and all(".second" in name for name in trainable)
    model.set_adapter("default")
    with model.disable_adapter():
        assert torch.equal(said(model), base)
    model.delete_adapter("second")
    assert not any(".second" in name for name, _ in model.named_parameters())
    assert torch.equal(said(model), moved)


def test_growing_is_merged_switched_off_and_made_a_lora():
    model, _, base = in_plain_peft("GROWING", r=2, most=4, alpha=6.0)
    moved = said(model)
    config, tensors = convert_to_lora(model, rank=2)
    fresh = tiny_network(5, layers=3, seed=4).network
    lora = get_peft_model(fresh, config, autocast_adapter_dtype=False).eval()
    set_peft_model_state_dict(lora, tensors)
    assert torch.allclose(said(lora), moved, atol=1e-5)
    model.merge_adapter()
    assert torch.allclose(said(model), moved, atol=1e-9)
    with model.disable_adapter():  # merged or not, off is the base
        assert torch.allclose(said(model), base, atol=1e-9)
    assert torch.allclose(said(model), moved, atol=1e-9)
    assert torch.allclose(said(model.merge_and_unload()), moved, atol=1e-9)


def test_a_mixture_is_never_made_a_constant_change():
    model, _, _ = in_plain_peft("MOLA", r=2, experts=[3], top_k=2)
    for merging in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(Mismatch, match="depends on the token"):
            merging()
    with pytest.raises(TypeError):
        convert_to_lora(model, rank=2)


def test_what_is_on_twice_is_on_as_often(adapters):
    """``logits`` of two growing adapters at once are those of the sum of their changes."""
    for seed, name in enumerate(("g", "h")):
        method = make_method("adapter", "increlora", start=2, target_rank=2.0, most=2)
        adapters.attach(method.config(adapters.shapes), name, seed=seed)
        move(adapters, name, seed)
    both = logits(adapters)
    first, second = deltas(adapters, "g"), deltas(adapters, "h")
    adapters.detach()
    with torch.no_grad():
        for path, change in first.items():
            adapters.model.network.get_submodule(path).weight.add_(change + second[path])
    assert torch.allclose(logits(adapters), both, atol=1e-9)
