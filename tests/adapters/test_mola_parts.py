"""MoLA part by part: the sum over experts, first values, balance, and what it teaches."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import IDS, attach, logits
from torch import nn

from workbench.core.method import make_method
from workbench.models.adapter_forms import peft_config
from workbench.models.tuners.mola import MolaLayer, balance, routers


def mixture(adapters, layer: int = 1) -> MolaLayer:
    return routers(adapters.model.network, "m")[layer][0]


def states(rows: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(rows, 16, dtype=torch.float64, generator=generator)


def test_it_is_the_weighted_sum_of_the_chosen_experts(adapters):
    """Token by token and expert by expert."""
    attach(adapters, "m", "mola", r=2, alpha=6.0, experts="4", top_k=2)
    layer, x = mixture(adapters), states()
    a, b = layer.mola_A["m"], layer.mola_B["m"]
    for token, got in zip(x, layer(x), strict=True):
        law = (layer.mola_router["m"] @ token).float().softmax(0)
        best = law.argsort(descending=True)[:2].tolist()
        wanted = layer.get_base_layer().weight @ token
        for expert in best:
            gate = float(law[expert] / sum(law[one] for one in best))
            wanted = wanted + 6.0 / 2 * gate * (b[expert] @ (a[expert] @ token))
        assert torch.allclose(got, wanted, atol=1e-6)


def test_dropout_meets_the_experts_and_not_the_router(adapters):
    attach(adapters, "m", "mola", r=2, experts="4", dropout=0.5)
    layer, x = mixture(adapters), states()
    once = layer.update("m", x)
    plain = layer.logits["m"]
    assert torch.equal(layer.update("m", x), once), "no dropout outside of training"
    layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert not torch.allclose(layer.update("m", x), once)
    assert torch.equal(layer.logits["m"], plain)


def test_experts_and_routers_start_as_linear_maps_do():
    """Kaiming-uniform with a = sqrt(5), expert by expert; the second factors start at 0."""
    layer = MolaLayer(nn.Linear(256, 64))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer.update_layer("m", peft_config("MOLA", r=8, experts=[5]), "layers.0.q_proj")
    bound = 256**-0.5
    for start in (*layer.mola_A["m"], layer.mola_router["m"]):
        assert 0.98 * bound < float(start.abs().max()) <= bound
        assert float(start.std()) == pytest.approx(bound / 3**0.5, rel=0.06)
    assert not torch.equal(layer.mola_A["m"][0], layer.mola_A["m"][1])
    assert not layer.mola_B["m"].any()


def test_the_head_counts_as_the_last_layer(adapters):
    method = make_method("adapter", "mola", r=2, experts="1,2,4", modules="q_proj,lm_head")
    adapters.attach(method.config(adapters.shapes), "m")
    counts = {place: len(found[0].mola_A["m"]) for place, found in mixtures(adapters).items()}
    assert counts == {0: 1, 1: 2, 2: 4, -1: 4}
    assert adapters.parameter_count("m") == method.parameter_count(adapters.shapes)


def mixtures(adapters):
    return routers(adapters.model.network, "m")


def say(mixture: MolaLayer, experts: tuple[int, int]) -> None:
    """Its router sends every token to these two of four."""
    row = torch.full((4,), -50.0)
    row[list(experts)] = 50.0
    mixture.logits["m"] = row.repeat(6, 1)


def test_mixtures_of_a_layer_balance_each_other_and_layers_do_not(adapters):
    attach(adapters, "m", "mola", r=2, experts="4", top_k=2)
    network = adapters.model.network
    for query, value in mixtures(adapters).values():
        say(query, (0, 1))
        say(value, (2, 3))
    assert float(balance(network, "m")) == pytest.approx(3 * 1.0)
    for place, (query, value) in mixtures(adapters).items():
        for one in (query, value):
            say(one, (0, 1) if place % 2 else (2, 3))
    assert float(balance(network, "m")) == pytest.approx(3 * 2.0)


def test_a_flat_router_counts_one_in_every_layer(adapters):
    """Whatever the number of experts is, also one."""
    attach(adapters, "m", "mola", r=2, experts="1,3,4", top_k=2)
    flat = {k: v * ("router" not in k) for k, v in adapters.state("m").items()}
    adapters.fill("m", flat)
    logits(adapters)
    assert float(balance(adapters.model.network, "m")) == pytest.approx(3.0)


def test_only_balance_teaches_a_router_before_the_experts_move(adapters):
    method = make_method("adapter", "mola", r=2, experts="3", balance=0.25)
    adapters.attach(method.config(adapters.shapes), "m")
    network = adapters.model.network
    companion = method.companion(network, "m")
    with adapters.train("m"):
        network.train()
        network(input_ids=IDS, use_cache=False).logits.square().mean().backward()
        layer = mixture(adapters)
        router, second = layer.mola_router["m"], layer.mola_B["m"]
        assert second.grad.abs().max() > 0 and not router.grad.any()
        network(input_ids=IDS, use_cache=False)
        extra = companion.extra_loss()
        assert float(extra.detach()) == pytest.approx(0.25 * float(balance(network, "m").detach()))
        extra.backward()
        assert router.grad.abs().max() > 0
        network.eval()
    silent = make_method("adapter", "mola", balance=0.0).companion(network, "m")
    assert silent.extra_loss() is None


def test_a_copy_can_be_made_in_the_middle_of_training(adapters):
    attach(adapters, "m", "mola", r=2, experts="3")
    wanted = logits(adapters)
    with adapters.train("m"):
        adapters.model.network(input_ids=IDS, use_cache=False)  # its logits hang in a graph
        copy = adapters.model.clone()
        assert balance(adapters.model.network, "m") is not None
    with torch.no_grad():
        assert torch.equal(copy.network(input_ids=IDS, use_cache=False).logits, wanted)
