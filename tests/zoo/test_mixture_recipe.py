"""The embedded mixture: its recipe's optimisers and walk, its files, and what inflating says."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.core.errors import BadInput
from workbench.core.routing import Own
from workbench.models.load import load
from workbench.models.routers import mixture_routers, own_of
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import blocks_of
from workbench.zoo.inflate import read_source
from workbench.zoo.publish import WEIGHTS
from workbench.zoo.recipe import RECIPES
from workbench.zoo.train import build_optimisers, exit_hiddens

IDS = torch.randint(3, 200, (2, 20), generator=torch.Generator().manual_seed(3))


def test_the_stored_mixture_is_the_recipes_and_normalises_its_two_weights():
    stored, made = AutoConfig.from_pretrained(WEIGHTS / "moe"), RECIPES["moe"].config()
    for name in ("hidden_size", "num_hidden_layers", "num_experts", "moe_intermediate_size"):
        assert getattr(stored, name) == getattr(made, name)
    assert (stored.bos_token_id, stored.eos_token_id, stored.pad_token_id) == (1, 2, 0)
    for gate in mixture_routers(load("zoo:moe").network).values():
        assert own_of(gate) == Own(2, True) and gate.num_experts == 8


def test_who_updates_what():
    """Muon takes matrices; routers stay with AdamW undecayed, stacked experts decayed."""
    network = tiny_network("qwen3_moe", tie_word_embeddings=True)
    muon, adamw = build_optimisers(network, RECIPES["moe"])
    groups = [*muon.param_groups, *adamw.param_groups]
    place = {id(p): at for at, group in enumerate(groups) for p in group["params"]}
    assert place.keys() == {id(p) for p in network.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(place)
    for block in blocks_of(network).values():
        assert place[id(block.gate.weight)] == 1
        assert {place[id(p)] for p in block.experts.parameters()} == {2}
    attention = network.model.layers[0].self_attn
    assert place[id(attention.q_proj.weight)] == 0 and place[id(attention.q_norm.weight)] == 1
    assert place[id(network.model.embed_tokens.weight)] == 1
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1]
    assert adamw.param_groups[0]["betas"] == (0.9, 0.95)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["qwen3_moe", "llama"])
def test_the_walk_of_training_and_measuring_is_the_networks_own_pass(family):
    network = tiny_network(family)
    last = len(network.model.layers) - 1
    walked = network.lm_head(exit_hiddens(network, IDS, set(), {last})[last])
    whole = network(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(walked, whole, atol=1e-5, rtol=1e-5)


def test_on_disk_every_expert_has_keys_of_its_own_and_comes_back_to_the_last_bit(tmp_path):
    network = tiny_network("qwen3_moe")
    network.save_pretrained(tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as file:
        names = set(file.keys())
        third = file.get_tensor("model.layers.1.mlp.experts.3.up_proj.weight")
    assert not any("gate_up_proj" in name for name in names)
    fused = network.model.layers[1].mlp.experts.gate_up_proj[3]
    assert torch.equal(third, fused[len(fused) // 2 :])  # gate above, up below
    back = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    state = network.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in back.state_dict().items())


def test_a_mixture_is_no_source_to_inflate():
    with pytest.raises(BadInput, match="'zoo:moe' is a 'qwen3_moe' model; name a Llama or Qwen3"):
        read_source("zoo:moe")


@torch.inference_mode()
def test_cloned_experts_need_as_many_times_the_choices():
    """Why a mixture is not inflated as it is: clones alone say something else."""
    for normalised in (True, False):
        network = tiny_network("qwen3_moe", norm_topk_prob=normalised)
        wanted = network(input_ids=IDS, use_cache=False).logits
        for block in blocks_of(network).values():
            for owner, name in (
                (block.gate, "weight"),
                (block.experts, "gate_up_proj"),
                (block.experts, "down_proj"),
            ):
                clones = getattr(owner, name).repeat_interleave(2, 0)
                setattr(owner, name, torch.nn.Parameter(clones))
            block.gate.num_experts = block.experts.num_experts = 8
        assert float((network(input_ids=IDS, use_cache=False).logits - wanted).abs().max()) > 0.01
        for gate in mixture_routers(network).values():
            gate.top_k = 4
        torch.testing.assert_close(
            network(input_ids=IDS, use_cache=False).logits, wanted, atol=1e-5, rtol=1e-5
        )
