"""Passes that go on half-way up a mixture: what is recorded, and whose recurrent state is read."""

from __future__ import annotations

import gc

import pytest
import torch
from stirred_gates import stirred

from workbench.bench.expert_cost import verified
from workbench.core.errors import ModelError
from workbench.core.routing import RoutingRecord
from workbench.core.span import Span
from workbench.drafters.kangaroo import Kangaroo
from workbench.engine.run import RunSettings, generate
from workbench.models.routers import record_routing, routing_tape
from workbench.moe.recurrent import Recurrent

TEXT = torch.randint(0, 250, (16,), generator=torch.Generator().manual_seed(3)).tolist()
PROMPT = "def add(a, b):\n    return a + b\n\ndef add(a, b):\n    ret"
PAST = 6
TREE = (-1, 0, 0)
WALKED = [("qwen3_moe", "fused"), ("olmoe", "walk")]


@pytest.fixture(params=WALKED, ids=lambda one: one[0])
def model(request, loaded):
    found = loaded(request.param[0])
    assert found.mode == request.param[1]
    return found


@pytest.fixture
def recurrent(model):
    """A mixture of its own with such gates."""
    own = model.clone()
    own.gates = stirred(own.network)
    return own


def session_of(model, past=PAST):
    made = model.session()
    made.sync(TEXT[:past])
    return made


@torch.inference_mode()
def plain(model, tokens):
    return model.network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


# ---- the tape ------------------------------------------------------------------------------------


def same_routing(record: RoutingRecord, whole: RoutingRecord, rows: slice) -> None:
    assert list(record.layers) == list(whole.layers)
    for number, layer in record.layers.items():
        other = whole.layers[number]
        close(layer.logits, other.logits[rows])
        close(layer.dense, other.dense[rows])


@pytest.mark.parametrize(("cuts", "depth"), [((3,), 1), ((1, 2), 2), ((2, 1), 1), ((1, 1, 1), 2)])
def test_a_resumed_pass_has_the_routing_of_all_layers(model, cuts, depth):
    session, whole = session_of(model), record_routing(model, TEXT[: PAST + 4])
    at = PAST
    with routing_tape(model.network) as tape:
        for count in cuts:
            session.ascend(TEXT[at : at + count], depth)
            at += count
        session.forward(TEXT[PAST : PAST + 4])  # a row more than has climbed
    records = tape.records()
    assert [r.token_count for r in records] == [*cuts, 1, 4]
    assert [list(r.layers) for r in records[:-1]] == [list(range(depth))] * (len(cuts) + 1)
    same_routing(records[-1], whole, slice(PAST, PAST + 4))


def test_what_climbed_and_was_dropped_is_in_no_later_pass(model):
    session, whole = session_of(model), record_routing(model, TEXT[: PAST + 2])
    with routing_tape(model.network) as tape:
        session.ascend(TEXT[10:12], 1)
        session.crop(PAST)
        session.ascend(TEXT[PAST : PAST + 1], 1)
        session.ascend(TEXT[PAST + 1 : PAST + 2], 1)
        session.forward(TEXT[PAST : PAST + 2])
        session.crop(PAST)
        session.forward(TEXT[PAST : PAST + 2], (-1, 0))
    for record in tape.records()[-2:]:
        same_routing(record, whole, slice(PAST, PAST + 2))


def test_two_sessions_of_a_model_are_told_apart(model):
    one, two = session_of(model), session_of(model, 0)
    with routing_tape(model.network) as tape:
        one.ascend(TEXT[PAST : PAST + 2], 1)
        two.ascend(TEXT[:2], 1)
        one.forward(TEXT[PAST : PAST + 2])
        two.forward(TEXT[:2])
    mine, others = tape.records()[-2:]
    same_routing(mine, record_routing(model, TEXT[: PAST + 2]), slice(PAST, PAST + 2))
    same_routing(others, record_routing(model, TEXT[:2]), slice(0, 2))


def test_where_every_gate_has_climbed_nothing_is_left_to_hear(model):
    session = session_of(model)
    with routing_tape(model.network) as tape:
        session.ascend(TEXT[PAST : PAST + 2], 3)
        session.forward(TEXT[PAST : PAST + 2])
        plain(model, TEXT[:4])
    assert [list(record.layers) for record in tape.records()] == [[0, 1, 2]] * 2
    assert [record.token_count for record in tape.records()] == [2, 4]


def test_a_tape_that_begins_half_way_hears_the_upper_layers(model):
    session = session_of(model)
    session.ascend(TEXT[PAST : PAST + 2], 1)
    with routing_tape(model.network) as tape:
        session.ascend(TEXT[PAST + 2 : PAST + 3], 1)
        session.forward(TEXT[PAST : PAST + 3])
    assert [list(record.layers) for record in tape.records()] == [[0], [1, 2]]


def test_the_cost_of_a_drafter_that_resumes_is_measured(model):
    drafter = Kangaroo(heads="untrained", exit_layer=1, eta=0.0)
    passes = verified(RunSettings(model, PROMPT, drafter, max_new_tokens=12))
    assert any(len(one.round.tokens) > 1 for one in passes)
    for one in passes:
        assert list(one.record.layers) == [0, 1, 2]
        assert one.record.token_count == len(one.round.tokens) + 1


# ---- recurrent gates -----------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "depth"), [((3,), 2), ((1, 1, 1), 1), ((2, 1), 2)])
def test_a_resumed_pass_reads_the_states_of_its_own_rows(recurrent, cuts, depth):
    session, at = session_of(recurrent), PAST
    for count in cuts:
        session.ascend(TEXT[at : at + count], depth)
        at += count
    got = session.forward(TEXT[PAST : PAST + 3]).logits
    close(got, plain(recurrent, TEXT[: PAST + 3])[PAST:])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_layers_without_experts_may_lie_below_and_above(loaded, depth):
    own = loaded("qwen3_moe", num_hidden_layers=4, mlp_only_layers=[0, 2]).clone()
    with stirred(own.network), routing_tape(own.network) as tape:
        session = session_of(own)
        session.ascend(TEXT[PAST : PAST + 1], depth)
        session.ascend(TEXT[PAST + 1 : PAST + 2], depth)
        got = session.forward(TEXT[PAST : PAST + 2]).logits
        close(got, plain(own, TEXT[: PAST + 2])[PAST:])
    resumed, whole = tape.records()[-2:]
    same_routing(resumed, whole, slice(PAST, PAST + 2))


@pytest.mark.parametrize(
    ("between", "parent"), [("ascent", None), ("thinned", None), ("thinned", TREE), ("text", None)]
)
def test_equally_many_other_rows_in_between_change_nothing(recurrent, between, parent):
    """They left their state behind, which had the right size for these rows."""
    session, other = session_of(recurrent), session_of(recurrent, 3)
    session.ascend(TEXT[PAST : PAST + 3], 1)
    if between == "ascent":
        other.ascend(TEXT[10:13], 1)
    elif between == "thinned":
        other.forward(TEXT[10:13], parent, span=Span.first(1))
    else:
        plain(recurrent, TEXT[10:13])
    got = session.forward(TEXT[PAST : PAST + 3]).logits
    close(got, plain(recurrent, TEXT[: PAST + 3])[PAST:])


@pytest.mark.parametrize("parent", [None, TREE])
def test_a_pass_after_a_roll_back_begins_without_a_state(recurrent, parent):
    """Also one that leaves out the first layer: it never reads what other rows left in it."""
    upper = Span.of([1, 2])
    wanted = session_of(recurrent).forward(TEXT[10:13], parent, span=upper).logits
    for left in (TEXT[PAST : PAST + 3], TEXT[10:13]):
        session = session_of(recurrent)
        session.forward(left, parent, span=Span.first(1))
        session.crop(PAST)
        assert torch.equal(session.forward(TEXT[10:13], parent, span=upper).logits, wanted)
        session.crop(PAST)
        session.ascend(left, 1)
        session.crop(PAST)
        whole = session.forward(TEXT[10:13], parent).logits
        for row, path in enumerate([[0], [0, 1], [0, 1, 2] if parent is None else [0, 2]]):
            text = [*TEXT[:PAST], *(TEXT[10 + place] for place in path)]
            close(whole[row], plain(recurrent, text)[-1])


def test_kangaroo_writes_the_targets_text_on_recurrent_gates(recurrent):
    drafter = Kangaroo(heads="untrained", exit_layer=1, eta=0.0)
    settings = RunSettings(recurrent, PROMPT, drafter, max_new_tokens=16)
    trace = generate(settings)
    assert any(len(one.tokens) > 1 for one in trace.rounds)
    assert trace.text == generate(settings.change(drafter="none")).text


def test_nothing_is_kept_for_longer_than_its_rows(recurrent):
    path, session = recurrent.gates.path, session_of(recurrent)
    assert not len(path.states)
    session.ascend(TEXT[PAST : PAST + 2], 1)
    assert len(path.states) == 1
    session.crop(PAST)
    gc.collect()
    assert not len(path.states)


def test_gates_that_came_after_the_climb_are_refused(model):
    own = model.clone()
    session = session_of(own)
    session.ascend(TEXT[PAST : PAST + 2], 1)
    with Recurrent(width=8).install(own.network) as gates:
        with pytest.raises(ModelError, match="were put in.*crop"):
            session.forward(TEXT[PAST : PAST + 2])
        session.crop(PAST)
        session.forward(TEXT[PAST : PAST + 2])
        assert not len(gates.path.states)


def refuse(module, args):
    raise ArithmeticError("planted")


@torch.inference_mode()
@pytest.mark.parametrize("before", ["nothing", "a call", "a call that failed"])
def test_a_single_layer_outside_a_pass_is_refused(recurrent, before):
    """Nobody can say whose state it should read: the rows of the layer below, or others."""
    gates, layers = recurrent.gates.gates, recurrent.network.model.layers
    if before == "a call":
        plain(recurrent, TEXT[:3])
    elif before == "a call that failed":
        with layers[1].register_forward_pre_hook(refuse), pytest.raises(ArithmeticError):
            plain(recurrent, TEXT[:3])
    width = recurrent.network.config.hidden_size
    here = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    gates[0](here)
    gates[0](here + 1)
    with pytest.raises(ModelError, match="layer 1 .*whole model"):
        gates[1](here)


def test_a_copy_tells_its_own_path_and_removing_takes_all_away(recurrent):
    network, gates = recurrent.network, recurrent.gates
    held = recurrent.clone()
    wanted = plain(recurrent, TEXT)
    gates.remove()
    gates.remove()
    inner = network.base_model
    assert not inner._forward_hooks and not inner._forward_pre_hooks
    assert torch.equal(plain(held, TEXT), wanted)
    assert not torch.allclose(plain(recurrent, TEXT), wanted)
