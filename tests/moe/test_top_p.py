"""Top-p routing: the sets by hand, its limits, and what its losses do in training."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from workbench.core.errors import BadInput
from workbench.core.losses import balance_of
from workbench.core.routing import LayerRouting, Own, law
from workbench.models.steering import Steering
from workbench.moe.top_p import TopP
from workbench.training.moe_finetune import MixtureSettings, finetune

OWN = Own(2, False)
LOGITS = torch.randn(60, 8, generator=torch.Generator().manual_seed(2)) * 2


def sets(p: float) -> list[set[int]]:
    layer = LayerRouting.of(LOGITS, TopP(p=p).route(LOGITS, OWN))
    return [layer.union([token]) for token in range(60)]


def by_hand(row: list[float], p: float) -> set[int]:
    chosen, total = set(), 0.0
    for expert in sorted(range(len(row)), key=lambda e: -row[e]):
        chosen.add(expert)
        total += row[expert]
        if total > p:
            break
    return chosen


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_the_sets_are_the_smallest_that_exceed_p(p):
    probs = law(LOGITS).tolist()
    assert sets(p) == [by_hand(row, p) for row in probs]
    for row, chosen in zip(probs, sets(p), strict=True):
        total = sum(row[expert] for expert in chosen)
        assert total > p and total - min(row[expert] for expert in chosen) <= p + 1e-6


def test_sets_grow_with_p():
    grown = [sets(p) for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    for smaller, larger in pairwise(grown):
        assert all(a <= b for a, b in zip(smaller, larger, strict=True))
    assert all(len(one) == 1 for one in grown[0]) and all(len(one) == 8 for one in grown[-1])


def test_an_even_router_takes_just_over_its_share():
    for p, wanted in ((0.4, 4), (0.5, 5), (0.25, 3)):
        routed = TopP(p=p).route(torch.zeros(3, 8), OWN)
        assert (routed.weights > 0).sum(-1).tolist() == [wanted] * 3  # floor(8p) + 1


def test_weights_are_the_raw_probabilities_or_sum_to_one():
    raw, one = (TopP(weights=w).route(LOGITS, OWN).weights.sum(-1) for w in ("raw", "sum to one"))
    assert bool((raw > 0.4).all()) and bool((raw <= 1 + 1e-6).all())
    torch.testing.assert_close(one, torch.ones(60))


def rows() -> torch.Tensor:
    return torch.randint(0, 30, (16, 24), generator=torch.Generator().manual_seed(8))


def trained(loaded, steps: int = 25, **knobs):
    model = loaded("qwen3_moe", num_experts=8).clone()
    weight = knobs.pop("balance", 0.0)
    settings = MixtureSettings(steps, 8, 2e-2, weight, 0.0, routers_only=True)
    done = finetune(model, rows(), TopP(**knobs), settings)
    return model, done


def test_the_entropy_loss_makes_the_router_sure_and_the_sets_small(loaded):
    _, done = trained(loaded, p=0.6, entropy_weight=1.0)
    first, last = done.curve[0], done.curve[-1]
    assert last.entropy_nats < 0.6 * first.entropy_nats
    assert 1 <= last.experts_per_token < 0.7 * first.experts_per_token


def test_the_balance_loss_spreads_the_load_of_the_sets_really_chosen(loaded):
    _, free = trained(loaded, p=0.4, entropy_weight=0.0, balance=0.0)
    _, even = trained(loaded, p=0.4, entropy_weight=0.0, balance=1.0)
    assert even.curve[-1].balance < free.curve[-1].balance
    assert even.curve[-1].balance < even.curve[0].balance
    ones = torch.eye(8).repeat(4, 1)
    assert float(balance_of(ones, ones)) == pytest.approx(1)


def test_training_trains_the_routers_only_where_asked_and_lets_the_rule_go(loaded):
    source = loaded("qwen3_moe", num_experts=8)
    before = {name: w.clone() for name, w in source.network.named_parameters()}
    model, done = trained(loaded, steps=3)
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name]) == ("gate.weight" not in name)
        assert not weight.requires_grad
    assert done.steps == 3 and not done.note
    with torch.inference_mode():
        own = model.network(input_ids=rows()[:1], use_cache=False).logits
        with Steering(model.network, TopP()):
            assert not torch.equal(model.network(input_ids=rows()[:1], use_cache=False).logits, own)


def test_stop_bad_text_and_divergence(loaded):
    model = loaded("qwen3_moe", num_experts=8).clone()
    done = finetune(model, rows(), None, MixtureSettings(steps=9), stopped=lambda: True)
    assert done.steps == 1 and "Stopped after 1 of 9" in done.note
    done = finetune(model, rows(), None, MixtureSettings(30, 4, 5.0))
    assert "diverges" in done.note and done.steps < 30
    with pytest.raises(BadInput, match="training text"):
        finetune(model, rows()[:, :4])
