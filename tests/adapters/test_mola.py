"""MoLA: gates, one expert is LoRA, the balance loss by hand, permuted experts, no merging."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import attach, logits

from workbench.core.errors import BadKnob, Mismatch
from workbench.core.method import make_method
from workbench.models.tuners.mola import balance, loads, routers


def test_experts_by_blocks_of_layers():
    from workbench.adapters.mola import profile

    assert profile("2,4,6,8", 8) == [2, 2, 4, 4, 6, 6, 8, 8]
    assert profile("1,2,3,4", 3) == [1, 2, 3]
    assert profile("3", 2) == [3, 3]
    for wrong in ("", "2,x", "0", "2,-1", "1.5"):
        with pytest.raises(BadKnob, match="mola.experts"):
            make_method("adapter", "mola", experts=wrong)


def test_the_papers_parameter_count(adapters):
    """435,200 at d = 320, 8 layers, r = 8, square q and v, N = 2 2 4 4 6 6 8 8."""
    from workbench.core.adapter import TargetShape

    shapes = [
        TargetShape(f"layers.{layer}.self_attn.{leaf}", layer, 320, 320)
        for layer in range(8)
        for leaf in ("q_proj", "v_proj")
    ]
    made = make_method("adapter", "mola", r=8, experts="2,4,6,8")
    assert made.parameter_count(shapes) == 435_200
    assert make_method("adapter", "mola", r=8, experts="5").parameter_count(shapes) == 435_200


def test_one_expert_is_plain_lora(adapters):
    attach(adapters, "m", "mola", r=2, alpha=4.0, experts="1")
    mixed, state = logits(adapters), adapters.state("m")
    adapters.detach()
    made = make_method("adapter", "lora", r=2, alpha=4.0)
    adapters.attach(made.config(adapters.shapes), "a")
    plain = {
        key: state[key.replace("lora_A.weight", "mola_A").replace("lora_B.weight", "mola_B")][0]
        for key in adapters.state("a")
    }
    adapters.fill("a", plain)
    assert torch.allclose(logits(adapters), mixed, atol=1e-9)


def test_gates_are_renormalised_after_the_choice(adapters):
    attach(adapters, "m", "mola", r=2, experts="4", top_k=2)
    layer = routers(adapters.model.network, "m")[0][0]
    x = torch.randn(7, 16, dtype=torch.float64)
    gates = layer.gates("m", x)
    law = (x @ layer.mola_router["m"].T).float().softmax(-1)
    assert ((gates > 0).sum(-1) == 2).all()
    assert torch.allclose(gates.sum(-1), torch.ones(7))
    best = law.topk(2).values
    assert torch.allclose(gates.sort(descending=True).values[:, :2], best / best.sum(-1, True))


def test_balance_by_hand(adapters):
    attach(adapters, "m", "mola", r=2, experts="4", top_k=2)
    layers = routers(adapters.model.network, "m")
    for mixtures in layers.values():
        for mixture in mixtures:
            mixture.logits["m"] = torch.tensor([[9.0, 9, -99, -99], [-99, -99, 9, 9]]).repeat(5, 1)
    assert float(balance(adapters.model.network, "m")) == pytest.approx(1.0 * len(layers))
    for mixtures in layers.values():
        for mixture in mixtures:
            mixture.logits["m"] = torch.tensor([[50.0, 50, -50, -50]]).repeat(6, 1)
    assert float(balance(adapters.model.network, "m")) == pytest.approx(2.0 * len(layers))
    assert loads(adapters.model.network, "m")[0] == [0.5, 0.5, 0.0, 0.0]


def test_the_order_of_experts_is_nothing(adapters):
    attach(adapters, "m", "mola", r=2, experts="4")
    before, order = logits(adapters), torch.tensor([2, 0, 3, 1])
    adapters.fill("m", {key: value[order] for key, value in adapters.state("m").items()})
    assert torch.allclose(logits(adapters), before, atol=1e-9)
    one_sided = {k: v[order] if "router" in k else v for k, v in adapters.state("m").items()}
    adapters.fill("m", one_sided)
    assert not torch.allclose(logits(adapters), before, atol=1e-3), "the router alone matters"


def test_it_refuses_to_be_merged(adapters):
    attach(adapters, "m", "mola", r=2, experts="2")
    with pytest.raises(Mismatch, match="depends on the token"):
        routers(adapters.model.network, "m")[0][0].merge()
    with pytest.raises(Mismatch, match="no LoRA"):
        make_method("operation", "merge").combine(adapters, ["m"], "x")
