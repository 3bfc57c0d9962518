"""The expert cache against a slow reference: loads, evictions, waste; and it only observes."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from workbench.core.expert_cache import Link, replay
from workbench.core.routing import LayerRouting, Routed, RoutingRecord
from workbench.models.expert_offload import ExpertOffload
from workbench.models.route_predictor import RoutePredictor
from workbench.models.routers import expert_bytes, record_routing
from workbench.models.steering import Steering
from workbench.moe.expertflow import ExpertFlow
from workbench.moe.top_p import TopP
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import MIXTURES, blocks_of

EXPERTS, K, TOKENS = 6, 2, 60


def routed(rows: list[list[int]]) -> RoutingRecord:
    """One layer in which every token goes to these experts, the first heaviest."""
    weights = torch.tensor([[0.6, 0.4][: len(row)] for row in rows])
    logits = torch.zeros(len(rows), EXPERTS)
    layer = LayerRouting.of(logits, Routed(weights, torch.tensor(rows)))
    return RoutingRecord({0: layer}, tuple(range(len(rows))))


def drawn(seed: int = 0, tokens: int = TOKENS) -> list[list[int]]:
    """Skewed pairs of experts."""
    generator = torch.Generator().manual_seed(seed)
    law = torch.tensor([5.0, 4.0, 2.0, 1.0, 1.0, 1.0])
    return [torch.multinomial(law, K, generator=generator).tolist() for _ in range(tokens)]


def guessed(rows: list[list[int]], seed: int = 3) -> list[list[int]]:
    """Right in every second expert or so."""
    other = drawn(seed, len(rows))
    pairs = zip(rows, other, strict=True)
    return [[row[0], *[e for e in two if e != row[0]][:1]] for row, two in pairs]


def by_hand(rows, plan, capacity: int) -> dict[str, int]:
    """A list of [expert, used since it was loaded ahead], the least recently used in front."""
    shelf: list[list] = []
    done = dict.fromkeys(("hits", "misses", "prefetches", "wasted"), 0)

    def put(expert: int, keep, used: bool) -> None:
        if len(shelf) == capacity:
            spare = [slot for slot in shelf if slot[0] not in keep] or shelf
            done["wasted"] += not spare[0][1]
            shelf.remove(spare[0])
        shelf.append([expert, used])

    for row, wanted in zip(rows, plan, strict=True):
        wanted = wanted[:capacity]
        for expert in wanted:
            if expert not in [slot[0] for slot in shelf]:
                done["prefetches"] += 1
                put(expert, wanted, used=False)
        for expert in row:
            there = [slot for slot in shelf if slot[0] == expert]
            done["hits" if there else "misses"] += 1
            if there:
                shelf.remove(there[0])
                shelf.append([expert, True])
            else:
                put(expert, row, used=True)
    done["wasted"] += sum(not used for _, used in shelf)
    return done


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 6])
def test_prefetches_misses_and_waste_are_those_of_the_slow_cache(capacity):
    rows = drawn()
    for plan in (guessed(rows), [[] for _ in rows]):
        policy = "prefetch" if plan[0] else "lru"
        layer = replay(routed(rows), policy, capacity, 1, plan={0: plan}).layers[0]
        wanted = by_hand(rows, plan, capacity)
        assert {name: getattr(layer, name) for name in wanted} == wanted
        assert policy == "lru" or capacity in (1, EXPERTS) or layer.wasted > 0


def test_an_expert_that_the_token_needs_makes_no_room_for_another():
    """The router names both at once: a miss repairs the guess and evicts neither of them."""
    rows, wrong = [[0, 1], [2, 0]], [[0, 1], [0, 1]]
    layer = replay(routed(rows), "prefetch", 2, 1, plan={0: wrong}).layers[0]
    assert (layer.hits, layer.misses) == (3, 1)  # 2 takes the place of 1, not of the older 0
    assert replay(routed(rows), "lru", 2, 1).layers[0].misses == 3


def test_a_prediction_that_is_true_loads_the_union_and_nothing_in_vain():
    rows = drawn()
    record = routed(rows)
    layer = replay(record, "prefetch", EXPERTS, 1, plan={0: rows}).layers[0]
    assert layer.misses == layer.wasted == 0
    assert layer.prefetches == len(record.layers[0].union())


@pytest.mark.parametrize("capacity", [2, 3, 4])
def test_looking_ahead_is_the_best_that_any_eviction_can_do(capacity):
    rows = drawn(5, 12)
    stream = [expert for row in rows for expert in row]

    @cache
    def fewest(at: int, held: frozenset) -> int:
        if at == len(stream):
            return 0
        if stream[at] in held:
            return fewest(at + 1, held)
        left = [held] if len(held) < capacity else [held - {one} for one in held]
        return 1 + min(fewest(at + 1, one | {stream[at]}) for one in left)

    assert replay(routed(rows), "look-ahead", capacity, 1).layers[0].misses == fewest(
        0, frozenset()
    )


def flow_of(rows, **knobs) -> tuple[RoutingRecord, RoutePredictor, ExpertFlow]:
    record = routed(rows)
    counts = (record.layers[0].dense != 0).float().sum(0)[None]
    return record, RoutePredictor("frequency", (0,), counts), ExpertFlow(**knobs)


def test_pinned_keeps_the_experts_that_training_text_used_most():
    record, predictor, flow = flow_of(drawn(), policy="pinned", capacity=2)
    layer = flow.simulate(record, 1000, predictor).layers[0]
    counts = predictor.frequency[0].sort(descending=True).values
    assert layer.hits == int(counts[:2].sum()) and layer.prefetches == 2 and layer.wasted == 0
    assert layer.misses == TOKENS * K - layer.hits
    assert layer.wait_ms == pytest.approx(Link().ms(layer.misses + 2, 1000))


def test_no_more_is_loaded_ahead_than_is_asked_for_or_fits():
    for capacity, ahead, most in ((4, 1, 1), (4, 3, 3), (2, 9, 2)):
        record, predictor, flow = flow_of([[4, 5]], capacity=capacity, ahead=ahead)
        assert flow.simulate(record, 1, predictor).layers[0].prefetches == most


def test_a_layers_wait_is_what_loading_ahead_exceeds_its_work_by_and_every_miss():
    rows, plan = [[0, 1], [2, 3]], [[0, 4], [2, 3]]
    link = Link(gb_per_s=1.0, latency_us=100.0, compute_us=1500.0)  # 1.1 ms an expert of 1 MB
    layer = replay(routed(rows), "prefetch", 4, 10**6, link, {0: plan}).layers[0]
    # 2 ahead (2.2 ms, 0.7 of them in the open), one miss; then 2 ahead again
    assert layer.wait_ms == pytest.approx(0.7 + 1.1 + 0.7)


def test_the_defaults_are_the_ones_that_were_measured():
    flow = ExpertFlow()
    assert (flow.policy, flow.predictor, flow.capacity) == ("prefetch", "token", 4)
    assert (flow.steps, flow.group_tokens, flow.ahead) == (300, 16, 2)
    assert flow.link == Link(16.0, 10.0, 50.0)


# ---- it only observes ----------------------------------------------------------------------------

IDS = torch.randint(0, 250, (1, 12), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits(network):
    return network(input_ids=IDS, use_cache=False).logits


def test_a_replay_leaves_record_and_model_as_they_were(loaded):
    model = loaded("qwen3_moe")
    plain, record = logits(model.network), record_routing(model, IDS[0].tolist())
    parts = {n: [part.clone() for part in vars(one).values()] for n, one in record.layers.items()}
    flow = ExpertFlow(steps=2, capacity=2)
    predictor = flow.fit(model.network.get_input_embeddings().weight, [record])
    for policy in ("pinned", "lru", "prefetch", "look-ahead"):
        ExpertFlow(policy=policy, capacity=2).simulate(record, 1, predictor)
    flow.schedule(record)
    for number, one in record.layers.items():
        kept = zip(vars(one).values(), parts[number], strict=True)
        assert all(torch.equal(now, before) for now, before in kept)
    assert torch.equal(logits(model.network), plain)


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("capacity", [1, 3])
def test_offloading_is_the_eager_kernel_to_the_last_bit(family, capacity):
    network = tiny_network(family)
    network.set_experts_implementation("eager")
    plain = logits(network)
    with ExpertOffload(network, capacity):
        assert torch.equal(logits(network), plain)
    with Steering(network, TopP(p=0.55)):  # the kernel multiplies padding too: other roundings
        plain = logits(network)
        with ExpertOffload(network, capacity):
            torch.testing.assert_close(logits(network), plain, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_choice_of_no_weight_is_never_loaded():
    """However a rule pads its short rows: what adds nothing is no reason to move an expert."""
    network = tiny_network("qwen3_moe")
    experts, x = blocks_of(network)[0].experts, torch.ones(2, 64)
    indices, weights = torch.tensor([[1, 0], [1, 2]]), torch.tensor([[1.0, 0.0], [0.7, 0.3]])
    with ExpertOffload(network, 4) as offload:
        experts(x, indices, weights)
        assert offload.bytes_moved == 2 * expert_bytes(network) and offload.hits == 0
        experts(x, indices, weights)
        assert offload.bytes_moved == 2 * expert_bytes(network) and offload.hits == 2


@torch.inference_mode()
def test_regrouped_tokens_come_back_as_they_were():
    block = blocks_of(tiny_network("olmoe"))[1]
    x = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(2))
    plain = block(x)[0] if isinstance(block(x), tuple) else block(x)
    record = RoutingRecord({1: LayerRouting.of(*_answer(block, x))})
    order, before, after = ExpertFlow(group_tokens=4).schedule(record)
    done = torch.empty_like(plain)
    for at in range(0, 40, 4):
        group = order[at : at + 4]
        made = block(x[:, group])
        done[:, group] = made[0] if isinstance(made, tuple) else made
    torch.testing.assert_close(done, plain, atol=1e-6, rtol=1e-6)
    assert after < before


def _answer(block, x):
    logits, weights, indices = block.gate(x)
    return logits, Routed(weights, indices)
