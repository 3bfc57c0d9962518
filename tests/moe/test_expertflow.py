"""ExpertFlow: what a cache counts, what a predictor is worth, what offloading computes."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput
from workbench.core.expert_cache import (
    POLICIES,
    Link,
    choices,
    distinct_per_layer,
    grouped,
    replay,
)
from workbench.core.routing import LayerRouting, Routed, RoutingRecord
from workbench.models.expert_offload import ExpertOffload
from workbench.models.route_predictor import fit_predictor
from workbench.models.routers import expert_bytes, routing_tape
from workbench.models.steering import Steering
from workbench.moe.expertflow import ExpertFlow
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import MIXTURES

EXPERTS, K = 8, 2
EMBEDDING = torch.randn(32, 16, generator=torch.Generator().manual_seed(5))


def made(tokens: list[int], seed: int = 0, noise: float = 0.5) -> RoutingRecord:
    """Two layers whose routes follow the token, with noise."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for number in (0, 3):
        head = torch.randn(16, EXPERTS, generator=torch.Generator().manual_seed(number))
        logits = EMBEDDING[tokens] @ head
        logits = logits + noise * torch.randn(logits.shape, generator=generator)
        weights, indices = logits.softmax(-1).topk(K)
        layers[number] = LayerRouting.of(logits, Routed(weights, indices))
    return RoutingRecord(layers, tuple(tokens))


def texts(count: int, length: int = 96) -> list[RoutingRecord]:
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randint(0, 32, (count, length), generator=generator)
    return [made(row.tolist(), seed) for seed, row in enumerate(tokens)]


def by_hand(layer: LayerRouting, capacity: int) -> int:
    """Misses of least recently used, with a plain list; what the token needs is not given up."""
    kept, misses = [], 0
    for row in choices(layer):
        for expert in row:
            misses += expert not in kept
            if expert in kept:
                kept.remove(expert)
            elif len(kept) == capacity:
                kept.remove(([one for one in kept if one not in row] or kept)[0])
            kept.append(expert)
    return misses


def plan_for(policy: str, record: RoutingRecord):
    if policy == "pinned":
        return {number: [[0, 1, 2]] for number in record.layers}
    return {number: choices(layer) for number, layer in record.layers.items()}


@pytest.mark.parametrize("capacity", [1, 2, 3, 8])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_choice_is_a_hit_or_a_miss_and_every_load_is_traffic(policy, capacity):
    record = texts(1)[0]
    report = replay(record, policy, capacity, 100, Link(), plan_for(policy, record))
    for layer in report.layers.values():
        assert layer.hits + layer.misses == 96 * K
        assert layer.wasted <= layer.prefetches
    moved = report.total("misses") + report.total("prefetches")
    assert report.bytes_moved == moved * 100
    if policy == "lru":
        assert [layer.misses for layer in report.layers.values()] == [
            by_hand(layer, capacity) for layer in record.layers.values()
        ]


def test_a_cache_of_all_experts_misses_each_once():
    record = texts(1)[0]
    for policy in ("lru", "look-ahead"):
        report = replay(record, policy, EXPERTS, 1)
        for number, layer in report.layers.items():
            assert layer.misses == len(record.layers[number].union())


def test_looking_ahead_misses_least_of_those_that_load_on_a_miss():
    record = texts(1)[0]
    for capacity in range(1, EXPERTS):
        lru, best = (replay(record, p, capacity, 1) for p in ("lru", "look-ahead"))
        assert best.total("misses") <= lru.total("misses")
    assert best.total("misses") < replay(record, "lru", 3, 1).total("misses")


def test_a_true_prediction_never_misses_and_a_shuffled_one_does():
    record = texts(1)[0]
    truth = plan_for("prefetch", record)
    assert replay(record, "prefetch", K, 1, plan=truth).total("misses") == 0
    order = torch.randperm(96, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = {number: [rows[at] for at in order] for number, rows in truth.items()}
    wrong = replay(record, "prefetch", K, 1, plan=shuffled)
    assert wrong.hit_ratio < replay(record, "lru", K, 1).hit_ratio + 0.15
    assert wrong.total("wasted") > 0


def test_the_wait_is_the_links():
    record = made([1])
    report = replay(record, "lru", 2, 4_000_000, Link(2.0, 500.0, 0.0))
    assert report.wait_ms == pytest.approx(4 * (4e6 / 2e9 * 1e3 + 0.5))  # 2 layers, 2 cold misses
    hidden = plan_for("prefetch", record)
    free = replay(record, "prefetch", 2, 4_000_000, Link(2.0, 500.0, 5000.0), hidden)
    assert free.wait_ms == 0
    late = replay(record, "prefetch", 2, 4_000_000, Link(2.0, 500.0, 1000.0), hidden)
    assert late.wait_ms == pytest.approx(2 * (5.0 - 1.0))


def test_predictors_are_better_the_more_they_read():
    seen = texts(24)
    new = made(
        torch.randint(0, 32, (200,), generator=torch.Generator().manual_seed(77)).tolist(), 99
    )
    recall = {
        kind: sum(fit_predictor(EMBEDDING, seen, kind, width=32).recall(new).values()) / 2
        for kind in ("frequency", "token", "context")
    }
    assert recall["token"] > recall["frequency"] + 0.2  # the routes follow the token
    assert recall["context"] > recall["frequency"] + 0.15
    hits = {}
    for kind in ("frequency", "token"):
        flow = ExpertFlow(predictor=kind, capacity=3)
        hits[kind] = flow.simulate(new, 1, flow.fit(EMBEDDING, seen)).hit_ratio
    assert hits["token"] > hits["frequency"] + 0.1


def test_regrouping_is_a_permutation_that_touches_fewer_experts():
    record = made(torch.randint(0, 32, (160,), generator=torch.Generator().manual_seed(2)).tolist())
    order, plain, better = ExpertFlow(group_tokens=8).schedule(record)
    assert sorted(order) == list(range(160))
    assert better <= 0.7 * plain
    one = distinct_per_layer(record, grouped(record, 1), 1)
    assert one == pytest.approx(K)


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("capacity", [1, 2, 4])
def test_offloading_computes_the_same_and_moves_what_it_says(family, capacity):
    network = tiny_network(family)
    ids = torch.randint(0, 250, (1, 12), generator=torch.Generator().manual_seed(3))

    def run():
        with torch.inference_mode():
            return network(input_ids=ids, use_cache=False).logits

    plain = run()
    with routing_tape(network) as tape, ExpertOffload(network, capacity) as offload:
        torch.testing.assert_close(run(), plain, atol=1e-5, rtol=1e-4)
        first = offload.bytes_moved
        union = sum(tape.records()[0].distinct().values())
        assert first == union * expert_bytes(network)  # nothing was there before
        run()
        again = offload.bytes_moved - first
        assert (again == 0) == (capacity == 4) and (offload.hits == union) == (capacity == 4)
    assert torch.equal(run(), plain)


def test_simulating_and_the_method_as_a_router_change_nothing():
    network = tiny_network("qwen3_moe")
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        plain = network(input_ids=ids, use_cache=False).logits
        with Steering(network, ExpertFlow()):
            assert torch.equal(network(input_ids=ids, use_cache=False).logits, plain)


def test_bad_input():
    record = texts(1)[0]
    with pytest.raises(BadInput, match="capacity=0"):
        replay(record, "lru", 0, 1)
    with pytest.raises(BadInput, match="needs a plan"):
        replay(record, "prefetch", 2, 1)
    with pytest.raises(BadInput, match="choose one of"):
        replay(record, "magic", 2, 1)
    with pytest.raises(BadInput, match="token ids"):
        fit_predictor(EMBEDDING, [RoutingRecord(record.layers)])
    with pytest.raises(BadInput, match="group_tokens=0"):
        grouped(record, 0)
    with pytest.raises(BadInput, match="capacity=0"):
        ExpertOffload(tiny_network("qwen3_moe"), 0)
