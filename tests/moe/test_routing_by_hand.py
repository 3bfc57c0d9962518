"""Routing against the formula itself: weights from x and the gate alone, and who hears of them."""

from __future__ import annotations

import pytest
import torch

from workbench.core.routing import Own, law
from workbench.core.steering import Intervention, steered
from workbench.models.routers import own_of, record_routing, routing_tape
from workbench.models.steering import AsTrained, Steering
from workbench.moe.top_k import TopK
from workbench.moe.top_p import TopP
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import MIXTURES, blocks_of, mixed_by_hand

IDS = torch.randint(0, 250, (1, 14), generator=torch.Generator().manual_seed(3))
DEFAULT_NORM = {"qwen2_moe": False, "qwen3_moe": False, "olmoe": False, "mixtral": True}


@torch.inference_mode()
def logits(network):
    return network(input_ids=IDS, use_cache=False).logits


@torch.inference_mode()
@pytest.mark.parametrize("family", MIXTURES)
def test_all_experts_weighted_by_the_softmax_over_all(family):
    """The weights are not read from a record: a wrong one would be recorded as it is."""
    network = tiny_network(family)
    block = blocks_of(network)[1]
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1))
    probs = (x @ block.gate.weight.T).softmax(-1)
    likeliest = probs.argmax(-1, keepdim=True)
    alone = torch.zeros_like(probs).scatter_(1, likeliest, 1.0)
    for rule, weights in (
        (TopK(k=4, weights="sum to one"), probs),
        (TopP(p=1.0), probs),
        (TopK(k=1, weights="raw"), probs * alone),
        (TopK(k=1, weights="sum to one"), alone),
    ):
        wanted = mixed_by_hand(block, x, weights)
        if hasattr(block, "shared_expert"):
            wanted += block.shared_expert(x) * block.shared_expert_gate(x).sigmoid()
        with Steering(network, rule):
            done = block(x[None])
        done = done[0] if isinstance(done, tuple) else done
        torch.testing.assert_close(done.view(9, 64), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "normalised"), DEFAULT_NORM.items())
def test_whether_weights_sum_to_one_is_the_gates_own(family, normalised, loaded):
    """Mixtral always, the others where their configuration says so; as the recorded sums show."""
    network = tiny_network(family)
    gate = blocks_of(network)[0].gate
    assert own_of(gate) == Own(2, normalised)
    sums = torch.zeros(14).index_add_(
        0, *_weights(record_routing(loaded(family), IDS[0].tolist()).layers[0])
    )
    assert torch.allclose(sums, torch.ones(14), atol=1e-6) == normalised
    assert bool((sums <= 1 + 1e-6).all())


def _weights(layer) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.token, layer.weight


def test_who_listened_before_the_steering_hears_what_is_done():
    """A hook added in the usual way would come after the listener, which would hear the old."""
    network = tiny_network("olmoe")
    with routing_tape(network) as tape:
        logits(network)
        with Steering(network, TopK(k=1), [Intervention("force", 3)]):
            logits(network)
        logits(network)
    before, forced, after = tape.records()
    for number, layer in forced.layers.items():
        assert layer.union() == {3}
        assert torch.equal(before.layers[number].dense, after.layers[number].dense)
        assert layer.union() != before.layers[number].union()


@pytest.mark.parametrize("rule", [TopP(p=0.6), TopP(p=0.6, weights="sum to one"), TopK(k=3)])
def test_the_law_is_that_of_float32_whatever_the_logits_are(rule):
    narrow = (3 * torch.randn(400, 8, generator=torch.Generator().manual_seed(6))).bfloat16()
    routed, wide = rule.route(narrow, Own(2, True)), rule.route(narrow.float(), Own(2, True))
    assert routed.weights.dtype == torch.float32
    assert torch.equal(routed.weights, wide.weights) and torch.equal(routed.indices, wide.indices)
    rounded = narrow.softmax(-1).topk(8).values.cumsum(-1)
    exact = law(narrow).topk(8).values.cumsum(-1)
    assert not torch.equal(rounded > 0.6, exact > 0.6)  # in 16 bits some sets would be others


def test_a_ban_and_a_silenced_expert_in_one_row():
    """The banned one is gone from the law before the silenced one's probability is taken away."""
    one = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    both = [Intervention("ban", 0), Intervention("silence", 1)]
    for own in (Own(2, False), Own(2, True)):
        weights, indices = steered(one, AsTrained(), own, both)
        assert indices.tolist() == [[2, 3]]
        left = one[:, 1:].softmax(-1)[:, 1:]
        wanted = left / left.sum(-1, keepdim=True) if own.normalised else left
        torch.testing.assert_close(weights, wanted)


def test_one_certain_expert_is_alone_and_an_even_law_of_sixteen_takes_seven():
    sure = torch.zeros(4, 16)
    sure[:, 5] = 60.0
    for p in (1e-9, 0.4, 0.99):
        routed = TopP(p=p).route(sure, Own(2, False))
        assert routed.indices.tolist() == [[5]] * 4
    assert TopP().route(torch.zeros(1, 16), Own(2, False)).indices.shape == (1, 7)  # floor(16p)+1
    assert TopP(p=0.4).bounds(16, Own(2, False)) == (1, 16)
