"""Routers of every mixture family: recorded, steered, let go; sessions and trees included."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, ModelError
from workbench.core.steering import Intervention
from workbench.models.routers import (
    expert_bytes,
    mixture_routers,
    own_of,
    record_routing,
    router_logits,
    routing_tape,
)
from workbench.models.steering import Steering
from workbench.moe.top_k import TopK
from workbench.moe.top_p import TopP
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import MIXTURES, blocks_of, mixed_by_hand, without_expert

IDS = torch.randint(0, 250, (1, 14), generator=torch.Generator().manual_seed(3))
NORMS = {"mixtral": ({},)}  # always normalised; the others have a switch
CASES = [
    (family, change)
    for family in MIXTURES
    for change in NORMS.get(family, ({"norm_topk_prob": True}, {"norm_topk_prob": False}))
]
named = pytest.mark.parametrize(("family", "change"), CASES, ids=str)


def logits(network, ids=IDS, **more):
    with torch.inference_mode():
        return network(input_ids=ids, use_cache=False, **more).logits


@named
def test_identity_and_letting_go_keep_every_bit(family, change):
    network = tiny_network(family, **change)
    plain = logits(network)
    for router in (None, TopK(), TopK(k=2)):
        with Steering(network, router):
            assert torch.equal(logits(network), plain)
    with Steering(network, None, [Intervention("ban", 0)]):
        assert not torch.equal(logits(network), plain)
    assert torch.equal(logits(network), plain)


@named
def test_a_block_is_the_weighted_sum_of_its_experts(family, change):
    network = tiny_network(family, **change)
    block = blocks_of(network)[1]
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1))
    for router in (None, TopK(k=4, weights="sum to one"), TopP(p=0.6)):
        with torch.inference_mode(), Steering(network, router), routing_tape(network) as tape:
            done = block(x[None])[0]
            wanted = mixed_by_hand(block, x, tape.records()[0].layers[1].dense)
            if hasattr(block, "shared_expert"):
                shared = block.shared_expert(x) * block.shared_expert_gate(x).sigmoid()
                wanted = wanted + shared
        torch.testing.assert_close(done, wanted, atol=1e-5, rtol=1e-5)


@named
def test_a_ban_is_a_model_without_the_expert(family, change):
    network = tiny_network(family, **change)
    cut = logits(without_expert(network, 1, 2))
    with Steering(network, None, [Intervention("ban", 2, layer=1)]):
        torch.testing.assert_close(logits(network), cut, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", MIXTURES)
def test_equal_experts_make_routing_irrelevant(family):
    network = tiny_network(family, **NORMS.get(family, ({"norm_topk_prob": True},))[0])
    with torch.no_grad():
        for block in blocks_of(network).values():
            for weight in (block.experts.gate_up_proj, block.experts.down_proj):
                weight.copy_(weight[:1].expand_as(weight).clone())
    plain = logits(network)
    with Steering(network, TopK(k=1), [Intervention("force", 3, layer=0)]):
        torch.testing.assert_close(logits(network), plain, atol=1e-5, rtol=1e-4)


def test_banning_an_expert_nobody_chose():
    for normalised in (True, False):
        network = tiny_network("qwen3_moe", norm_topk_prob=normalised)
        with torch.no_grad():
            gate = mixture_routers(network)[1]
            gate.weight[3] = -gate.weight[0] * 0.01  # seldom among the likeliest two
        with routing_tape(network) as tape:
            plain = logits(network)
        layer = tape.records()[0].layers[1]
        unused = (layer.dense == 0).all(0).nonzero().flatten().tolist()
        if not unused:
            network.set_experts_implementation("eager")
            layer_ids = [t for t in range(14) if layer.dense[t, 3] == 0]
            assert layer_ids  # some token does not go to expert 3: it is the one to look at
            one = [Intervention("ban", 3, 1, t) for t in layer_ids]
        else:
            one = [Intervention("ban", unused[0], 1)]
        silent = [Intervention("silence", i.expert, i.layer, i.position) for i in one]
        with Steering(network, None, silent):
            torch.testing.assert_close(logits(network), plain, atol=1e-5, rtol=1e-4)
        with Steering(network, None, one):
            banned = logits(network)
        assert normalised == bool(torch.allclose(banned, plain, atol=1e-5, rtol=1e-4))


@pytest.mark.parametrize("family", MIXTURES)
def test_kernels_agree_also_on_rows_of_varying_width(family):
    network = tiny_network(family)
    seen = []
    for kernel in ("eager", "grouped_mm", "batched_mm"):
        network.set_experts_implementation(kernel)
        with Steering(network, TopP(p=0.55), [Intervention("weigh", 1, factor=0.5)]):
            seen.append(logits(network))
    torch.testing.assert_close(seen[1], seen[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen[2], seen[0], atol=1e-5, rtol=1e-4)


def test_the_librarys_own_record_hears_what_was_done():
    network = tiny_network("olmoe")
    logits(network, output_router_logits=True)  # installs the library's recorder before the hook
    with Steering(network, None, [Intervention("force", 3)]), routing_tape(network) as tape:
        logits(network)
        with router_logits(network) as heard:
            logits(network)
    for number, layer in tape.records()[0].layers.items():
        assert bool((layer.dense[:, 3] > 0).all())
        assert torch.equal(heard[number], layer.logits)


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("k", [1, 3, 4])
def test_k_live_is_a_model_with_that_k(family, k):
    network = tiny_network(family)
    with Steering(network, TopK(k=k)):
        steered = logits(network)
    for gate in mixture_routers(network).values():
        gate.top_k = k
    assert torch.equal(logits(network), steered)


def test_top_p_limits():
    network = tiny_network("qwen3_moe")
    for first, second in (
        (TopP(p=1e-9), TopK(k=1, weights="raw")),
        (TopP(p=1.0), TopK(k=4, weights="raw")),
    ):
        with Steering(network, first):
            one = logits(network)
        with Steering(network, second):
            assert torch.equal(one, logits(network))


# ---- sessions -----------------------------------------------------------------------------------

TREE, PARENT = [5, 9, 17, 30, 41], [-1, 0, 0, 1, 2]


@pytest.mark.parametrize("family", MIXTURES)
def test_sessions_go_through_the_same_hooks(family, loaded):
    model = loaded(family)
    prefix = IDS[0, :6].tolist()
    steps = [
        Intervention("ban", 1, 0),
        Intervention("force", 2, 1, 7),
        Intervention("ban", 0, 2, 8),
    ]
    with Steering(model.network, TopK(k=1), steps):
        session = model.session()
        session.sync(prefix)
        with routing_tape(model.network) as tape:
            rows = session.forward(TREE, PARENT).logits
        record = tape.records()[0]
        for row in range(len(TREE)):
            path, at = [], row
            while at >= 0:
                path, at = [TREE[at], *path], PARENT[at]
            alone = logits(model.network, torch.tensor([[*prefix, *path]]))[0, -1]
            torch.testing.assert_close(rows[row], alone, atol=1e-4, rtol=1e-4)
    assert record.token_count == len(TREE)
    assert record.layers[1].ranked(0)[0][1:3] == [2, 2]  # rows 1 and 2 are both token 7
    assert 1 not in record.layers[0].union()
    assert len(model.session().forward([3]).logits) == 1


def test_a_position_is_that_of_the_text_with_and_without_a_cache(loaded):
    model = loaded("qwen3_moe")
    only = [Intervention("ban", expert, position=9) for expert in (0, 1)]
    plain = logits(model.network)
    with Steering(model.network, None, only):
        whole = logits(model.network)
        session = model.session()
        pieces = []
        for part in (IDS[0, :4], IDS[0, 4:10], IDS[0, 10:]):
            pieces.append(session.forward(part.tolist()).logits)
            session.commit(range(len(part)))
        batch = logits(model.network, IDS.repeat(3, 1))
    torch.testing.assert_close(whole[0, :9], plain[0, :9], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole[0, 9], plain[0, 9], atol=1e-2)
    torch.testing.assert_close(torch.cat(pieces), whole[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch[2], whole[0], atol=1e-4, rtol=1e-4)


def test_a_single_layer_called_by_hand_has_no_positions():
    network = tiny_network("qwen3_moe")
    with Steering(network, None, [Intervention("ban", 0, position=1)]):
        with pytest.raises(ModelError, match="whole model only"):
            blocks_of(network)[0](torch.zeros(1, 2, 64))
        logits(network)


def test_every_expert_banned_and_dense_models_are_refused(loaded):
    network = tiny_network("mixtral")
    plain = logits(network)
    with pytest.raises(BadInput, match="all 4 experts"):
        Steering(network, None, [Intervention("ban", expert) for expert in range(4)])
    assert torch.equal(logits(network), plain)  # a refused one leaves no hook behind
    with pytest.raises(BadInput, match="2 experts forced"):
        Steering(network, TopP(), [Intervention("force", expert, 1) for expert in range(2)])
    with pytest.raises(ModelError, match="no experts"):
        Steering(tiny_network("llama"))


def test_the_record_of_a_model(loaded):
    model = loaded("olmoe")
    record = record_routing(model, IDS[0].tolist())
    assert record.tokens == tuple(IDS[0].tolist()) and list(record.layers) == [0, 1, 2]
    for layer in record.layers.values():
        assert layer.load.sum() == pytest.approx(2)  # k = 2
    assert own_of(mixture_routers(model.network)[0]).k == 2
    assert expert_bytes(model.network) == 4 * 3 * 64 * 64
