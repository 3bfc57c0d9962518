"""Widening keeps the function of Llama and Qwen3 networks, and each of its rules is needed."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from workbench.models.load import load
from workbench.testing.checkpoints import tiny_network
from workbench.zoo.inflate import config_of, widening_of
from workbench.zoo.widening import WAYS, Shape, Tensors, Widening, shares

TINY = Shape(hidden=208, head_size=48, heads=16, kv_heads=4, inner=100, layers=4)


def grown_in_memory(network, widening: Widening, seed: int = 0):
    """A network with the tensors of ``widening``, which may be a wrong one."""
    config = config_of(network.config, widening, torch.float32)
    large = AutoModelForCausalLM.from_config(config).eval()
    weights = {name: tensor.float() for name, tensor in network.state_dict().items()}
    state: dict = {}
    for part in Tensors(widening, seed, torch.float32).parts(weights):
        state |= part
    missing, unknown = large.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unknown
    large.tie_weights()
    return large


@torch.inference_mode()
def difference(network, large) -> float:
    ids = torch.randint(0, 256, (2, 60), generator=torch.Generator().manual_seed(1))
    return float((network(ids).logits - large(ids).logits).abs().max())


def tiny(family: str, eps: float = 1e-2, **changes):
    """A random network whose norms' gains and eps matter."""
    return tiny_network(family, rms_norm_eps=eps, **changes)


def tiny_widening(network, way: str = "duplicate") -> Widening:
    return widening_of(network.config, TINY, way)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_both_families_both_ways(family, way, tied, eps):
    network = tiny(family, eps, tie_word_embeddings=tied)
    widening = tiny_widening(network, way)
    assert widening.tied == (tied and way == "zeros")
    large = grown_in_memory(network, widening)
    assert difference(network, large) < 1e-4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_rotary_tables_that_only_rescale_frequencies_keep(rope):
    network = tiny("llama", rope_parameters={"rope_theta": 500.0, **rope})
    assert difference(network, grown_in_memory(network, tiny_widening(network))) < 1e-4


def test_inert_weights_depend_on_the_seed_and_the_function_does_not():
    network = tiny("llama")
    widening = tiny_widening(network)
    weights = dict(network.state_dict())
    one, same, other = (
        Tensors(widening, seed, torch.float32).layer(weights, 3) for seed in (1, 1, 2)
    )
    name = "model.layers.3.mlp.up_proj.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])
    narrow = one[name].bfloat16().float()
    assert torch.equal(one[name], narrow), "kept in 16 bits by the compiled pass"
    assert difference(network, grown_in_memory(network, widening, seed=2)) < 1e-4


def test_shares_are_powers_of_two_that_sum_to_one():
    for copies in range(1, 40):
        found = shares(copies)
        assert len(found) == copies and sum(found) == 1
        assert all(math.frexp(share)[0] == 0.5 for share in found)


BROKEN = {
    "eps": lambda w: {"eps": w.eps / w.gain**2},
    "gain": lambda w: {"gain": 1.0},
    "shares": lambda w: {"shares": (0.5,) * w.copies},
    "head order": lambda w: {"heads": tuple(range(w.small.heads))},
    "groups swapped": lambda w: {"heads": (*w.heads[2:], *w.heads[:2])},
    "rotary map": lambda w: {"dims": tuple(range(w.small.head_size))},
    "order of rotary pairs": lambda w: {"dims": (w.dims[1], w.dims[0], *w.dims[2:])},
    "attention scale": lambda w: {"query": 1.0},
    "key gain": lambda w: {"key_gain": 1.0},
    "key factor": lambda w: {"key": 1.0},
}
OF_HEAD_NORMS = {"key gain", "key factor"}  # llama has none
CASES = [("llama", rule) for rule in BROKEN if rule not in OF_HEAD_NORMS]


@pytest.mark.parametrize(("family", "rule"), [*CASES, *(("qwen3", rule) for rule in BROKEN)])
def test_a_broken_rule_shows(rule, family):
    network = tiny(family)
    widening = tiny_widening(network)
    wrong = dataclasses.replace(widening, **BROKEN[rule](widening))
    assert wrong != widening
    assert difference(network, grown_in_memory(network, wrong)) > 1e-3


def test_a_head_tied_to_the_copies_shows():
    network = tiny("llama", tie_word_embeddings=True)
    widening = tiny_widening(network)
    assert not widening.tied
    large = grown_in_memory(network, widening)
    assert difference(network, large) < 1e-4
    large.lm_head.weight = large.model.embed_tokens.weight
    assert difference(network, large) > 1


def test_inert_heads_that_write_show():
    network = tiny("llama")
    large = grown_in_memory(network, tiny_widening(network))
    with torch.no_grad():
        large.model.layers[0].self_attn.o_proj.weight[:, -1] = 0.02
    assert difference(network, large) > 1e-3


def test_the_trained_target_shows_a_small_error_too():
    """The real eps is 1e-5: that it is not scaled must not hide in the tolerance."""
    source = load("zoo:target")
    small = copy.deepcopy(source.network)
    shape = Shape(hidden=360, head_size=32, heads=10, kv_heads=5, inner=864, layers=8)
    widening = widening_of(small.config, shape)
    right = grown_in_memory(small, widening)
    assert difference(small, right) < 1e-4
    right.model.layers[0].input_layernorm.variance_epsilon = source.network.config.rms_norm_eps * 2
    assert difference(small, right) > 1e-4


def test_qwen3_counts_the_norms_of_heads():
    network = tiny("qwen3")
    large = grown_in_memory(network, tiny_widening(network))
    count = sum(weight.numel() for weight in large.parameters())
    assert count == TINY.parameters(260, tied=False, head_norms=True)
