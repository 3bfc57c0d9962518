"""The routing record: triples, what is derived from them, files."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from workbench.core.errors import BadInput, TraceError
from workbench.core.losses import balance_loss, balance_of, router_entropy
from workbench.core.routing import (
    LayerRouting,
    Own,
    Routed,
    RoutingRecord,
    experts_at,
    heaviest,
    law,
    p_for_mean,
    padded,
)
from workbench.core.steering import Intervention, check_interventions, steered
from workbench.models.steering import AsTrained
from workbench.moe.top_p import TopP


def layer(rows: list[list[float]], routed: Routed) -> LayerRouting:
    return LayerRouting.of(torch.tensor(rows), routed)


@pytest.fixture
def record() -> RoutingRecord:
    """Three tokens, two layers of three experts, written out by hand."""
    rows = [[1.0, 0.0, 0.0]] * 3
    lower = Routed(
        torch.tensor([[0.6, 0.4], [0.9, 0.0], [0.5, 0.5]]), torch.tensor([[0, 1], [2, 2], [1, 0]])
    )
    upper = Routed(torch.ones(3, 1), torch.tensor([[2], [2], [1]]))
    return RoutingRecord({1: layer(rows, lower), 4: layer(rows, upper)}, (7, 8, 9))


def test_what_is_derived(record):
    low = record.layers[1]
    assert low.token.tolist() == [0, 0, 1, 2, 2] and low.expert.tolist() == [0, 1, 2, 1, 0]
    assert low.experts_per_token.tolist() == [2, 1, 2]
    assert low.load.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert low.union([0, 2]) == {0, 1} and low.union() == {0, 1, 2} and low.union([]) == set()
    assert record.distinct([1, 2]) == {1: 3, 4: 2} and record.distinct() == {1: 3, 4: 2}
    assert low.ranked(0)[0] == [0, 2, 0]  # a tie goes to the lower number
    assert low.ranked(1) == ([1, -1, 1], pytest.approx([0.4, 0.0, 0.5]))
    assert low.ranked(7) == ([-1, -1, -1], [0.0, 0.0, 0.0])
    probs = [math.e / (math.e + 2), 1 / (math.e + 2), 1 / (math.e + 2)]
    entropy = -sum(p * math.log(p) for p in probs)
    assert low.entropy.tolist() == pytest.approx([entropy] * 3)
    assert float(router_entropy(low.logits)) == pytest.approx(entropy)


def test_the_flow_counts_heaviest_experts_and_sums_to_one(record):
    flow = record.flow(1, 4)
    assert flow[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3]) and flow.sum() == pytest.approx(1)
    assert flow[2, 2] == pytest.approx(1 / 3)


def test_soft_and_expert_choice_routing_are_triples_too():
    soft = Routed(torch.full((2, 3), 1 / 3), torch.tensor([[0, 1, 2]] * 2))
    assert layer([[0.0] * 3] * 2, soft).load.tolist() == [1, 1, 1]
    chosen = LayerRouting(  # expert 1 chose both tokens, expert 0 the second, nobody expert 2
        torch.zeros(2, 3), torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3)
    )
    assert chosen.experts_per_token.tolist() == [1, 2] and chosen.union() == {0, 1}


def test_a_file_comes_back_as_it_was(record, tmp_path):
    back = RoutingRecord.load(record.save(tmp_path / "routing.safetensors"))
    assert back.tokens == record.tokens and list(back.layers) == [1, 4]
    for number, was in record.layers.items():
        for part in ("logits", "token", "expert", "weight"):
            assert torch.equal(getattr(back.layers[number], part), getattr(was, part))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"1.expert": torch.tensor([0, 1, 2, 1, 3])}, "expert must lie in"),
        ({"1.expert": torch.tensor([0, 1, 2, 1])}, "damaged"),
        ({"1.logits": torch.full((3, 3), float("nan"))}, "NaN"),
        ({"1.logits": torch.zeros(2, 3)}, "must lie in"),
        ({"1.token": torch.zeros(5)}, "not torch.int64"),
        ({"x.token": torch.zeros(5)}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(record, tmp_path, change, says):
    path = tmp_path / "bad.safetensors"
    tensors = {
        f"{number}.{part}": getattr(one, part)
        for number, one in record.layers.items()
        for part in ("logits", "token", "expert", "weight")
    }
    save_file({**tensors, **change}, path, {"schema": "1", "kind": "routing", "tokens": "[]"})
    with pytest.raises(TraceError, match=says):
        RoutingRecord.load(path)


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "text"
    text.write_text("no tensors")
    weights = tmp_path / "weights"
    save_file({"w": torch.zeros(1)}, weights)
    for path in (text, weights, tmp_path / "absent"):
        with pytest.raises(TraceError, match="no routing record"):
            RoutingRecord.load(path)


def test_layers_must_agree():
    one = layer([[0.0, 1.0]], Routed(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long)))
    two = layer([[0.0, 1.0]] * 2, Routed(torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.long)))
    with pytest.raises(BadInput, match="same tokens"):
        RoutingRecord({0: one, 1: two})
    with pytest.raises(BadInput, match="2 ids for 1"):
        RoutingRecord({0: one}, (1, 2))
    with pytest.raises(BadInput, match="one or more"):
        RoutingRecord({})


def test_balance_is_k_when_even_and_e_when_collapsed():
    even = torch.eye(8).repeat(4, 1) * 9
    assert float(balance_loss(even, 1)) == pytest.approx(1, abs=1e-3)
    assert float(balance_loss(torch.zeros(64, 8), 2)) == pytest.approx(2)
    alone = torch.zeros(64, 8)
    alone[:, 3] = 90
    assert float(balance_loss(alone, 1)) == pytest.approx(8)
    assert float(balance_of(law(alone), law(alone).round())) == pytest.approx(8)


def test_padding_repeats_the_first_expert_with_no_weight():
    whole = heaviest(law(torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 1.1]])), 3, False)
    used = torch.tensor([[True, False, False], [True, True, False]])
    weights, indices = padded(whole, used)
    assert indices.tolist() == [[0, 0], [2, 1]] and weights[0, 1] == 0 and weights[1, 1] > 0


# ---- interventions ------------------------------------------------------------------------------

LOGITS = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [0.0, 3.0, 0.0, 3.1]])


OWN = Own(2, True)


def grid(interventions, own=OWN, positions=None):
    routed = steered(LOGITS, AsTrained(), own, interventions, positions)
    return torch.zeros(3, 4).scatter_add_(1, routed.indices, routed.weights)


def test_a_ban_is_the_law_without_that_expert():
    without = grid([Intervention("ban", 0)])
    left = law(LOGITS[:, 1:])
    wanted = heaviest(left, 2, True)
    assert torch.allclose(without[:, 1:], torch.zeros(3, 3).scatter(1, wanted[1], wanted[0]))


def test_with_raw_weights_a_ban_lets_the_others_grow_and_silence_does_not():
    own, probs = Own(2, False), law(LOGITS)
    banned, silent = grid([Intervention("ban", 0)], own), grid([Intervention("silence", 0)], own)
    assert torch.allclose(silent[1], torch.where(silent[1] > 0, probs[1], 0.0))
    assert torch.allclose(banned[1] * (1 - probs[1, 0]), silent[1])
    normal = [Intervention("ban", 0)], [Intervention("silence", 0)]
    assert torch.equal(grid(normal[0]), grid(normal[1]))


def test_a_forced_expert_takes_the_lightest_place():
    plain, forced = grid([]), grid([Intervention("force", 3)])
    assert bool((forced[:, 3] > 0).all())
    assert torch.equal(forced[1:], plain[1:])  # they had it already
    assert forced[0].tolist() == [float(plain[0, 0]), 0, 0, float(plain[0, 1])]
    both = grid([Intervention("force", 0), Intervention("force", 2)])
    assert bool((both[:, [0, 2]] > 0).all()) and bool((both[:, [1, 3]] == 0).all())


def test_padding_is_no_place_for_a_forced_expert():
    sure = torch.tensor([[9.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.9]])
    weights, indices = steered(sure, TopP(p=0.7), OWN, [Intervention("force", 3)])
    assert weights.shape == (2, 3) and indices[0].tolist() == [3, 3, 3]
    assert float(weights[0, 0]) > 0.99 and weights[0, 1:].tolist() == [0, 0]
    assert 3 in indices[1].tolist()


def test_a_weight_is_scaled_and_the_others_stay():
    plain, scaled = grid([]), grid([Intervention("weigh", 0, factor=0.25)])
    assert torch.equal(scaled[:, 0], plain[:, 0] * 0.25)
    assert torch.equal(scaled[:, 1:], plain[:, 1:])


def test_rows_that_are_not_named_keep_every_bit():
    positions = torch.tensor([4, 5, 5])
    for action in ("ban", "silence", "force", "weigh"):
        for own in (Own(2, True), Own(2, False)):
            one = Intervention(action, 1, position=4, factor=0.5)
            changed, plain = grid([one], own, positions), grid([], own)
            assert torch.equal(changed[1:], plain[1:])
            assert action == "force" or not torch.equal(changed[0], plain[0])


def test_fewer_experts_left_than_places_run_no_banned_one():
    bans = [Intervention("ban", expert) for expert in (0, 1, 2)]
    routed = steered(LOGITS, AsTrained(), Own(2, True), bans)
    assert routed.indices.unique().tolist() == [3]
    assert routed.weights.tolist() == [[1, 0]] * 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([Intervention("ban", e) for e in range(4)], "all 4 experts of layer 0 are banned"),
        (
            [Intervention("ban", e, 1, 7 if e else None) for e in range(4)],
            "layer 1, token 7 are banned",
        ),
        ([Intervention("force", e) for e in range(3)], "3 experts forced"),
        ([*[Intervention("ban", e) for e in range(3)], Intervention("force", 3, 0, 1)], ""),
        ([Intervention("ban", 1), Intervention("force", 1, 0)], "banned and forced"),
        ([Intervention("ban", 9)], "there are 4"),
        ([Intervention("ban", 1, layer=5)], "layer=5"),
    ],
)
def test_what_cannot_be_done_is_refused(given, says):
    if not says:
        check_interventions(given, {0: 4, 1: 4}, 2)
        return
    with pytest.raises(BadInput, match=says):
        check_interventions(given, {0: 4, 1: 4}, 2)


def test_values_out_of_range_are_refused():
    with pytest.raises(BadInput, match="choose one of"):
        Intervention("kill", 0)
    with pytest.raises(BadInput, match="expert=-1"):
        Intervention("ban", -1)
    with pytest.raises(BadInput, match="factor=11"):
        Intervention("weigh", 0, factor=11)


def recorded(logits: list[torch.Tensor]) -> RoutingRecord:
    own = Own(2, True)
    return RoutingRecord(
        {n: LayerRouting.of(x, AsTrained().route(x, own)) for n, x in enumerate(logits)}
    )


@pytest.mark.parametrize("wanted", [1.0, 1.3, 2.0, 3.71, 6.5, 8.0])
def test_p_is_found_for_a_mean_number_of_experts(wanted):
    generator = torch.Generator().manual_seed(5)
    record = recorded([torch.randn(50, 8, generator=generator) * scale for scale in (0.5, 2, 4)])
    p = p_for_mean(record, wanted)
    assert experts_at(record, p) == pytest.approx(wanted, abs=0.51 / 150)
    rule, own = TopP(p=p), Own(2, True)  # and the rule itself does that
    used = [(rule.route(x.logits, own).weights > 0).sum(-1) for x in record.layers.values()]
    assert float(torch.cat(used).float().mean()) == pytest.approx(wanted, abs=0.51 / 150)


def test_no_p_gives_less_than_one_expert_or_more_than_all():
    record = recorded([torch.zeros(4, 3)])
    for bad in (0.5, 3.5, math.nan):
        with pytest.raises(BadInput, match=r"in \[1, 3\]"):
            p_for_mean(record, bad)
    assert experts_at(record, p_for_mean(record, 2.0)) == 2  # all four tie
