"""RMoE: the cell, the path, its controls; a mixture that starts as it was and can be trained."""

from __future__ import annotations

import copy

import pytest
import torch
from stirred_gates import stirred

from workbench.core.errors import BadInput, ModelError
from workbench.core.steering import Intervention
from workbench.models.recurrent_gate import RecurrentGates
from workbench.models.routers import routing_tape
from workbench.models.steering import Steering
from workbench.moe.recurrent import Recurrent
from workbench.testing.checkpoints import tiny_network
from workbench.testing.mixtures import MIXTURES
from workbench.training.moe_finetune import MixtureSettings
from workbench.training.rmoe import ARMS, train_arm

IDS = torch.randint(0, 250, (1, 14), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits(network, ids=IDS, **more):
    return network(input_ids=ids, use_cache=False, **more).logits


def gru_by_hand(cell, u, h):
    """The update as it is written: reset, update and new gate, in this order."""
    (w_r, w_z, w_n), (v_r, v_z, v_n) = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)
    (b_r, b_z, b_n), (c_r, c_z, c_n) = cell.bias_ih.chunk(3), cell.bias_hh.chunk(3)
    rho = torch.sigmoid(u @ w_r.T + b_r + h @ v_r.T + c_r)
    z = torch.sigmoid(u @ w_z.T + b_z + h @ v_z.T + c_z)
    n = torch.tanh(u @ w_n.T + b_n + rho * (h @ v_n.T + c_n))
    return (1 - z) * n + z * h


@pytest.mark.parametrize("family", MIXTURES)
def test_a_fresh_one_is_the_mixture_itself_and_removing_it_is_exact(family):
    network = tiny_network(family)
    plain = logits(network)
    with Recurrent().install(network):
        assert torch.equal(logits(network), plain)
        assert len(network(IDS, output_router_logits=True).router_logits) == 3  # found by class
    with stirred(network):
        assert not torch.allclose(logits(network), plain)
    assert torch.equal(logits(network), plain)


@torch.inference_mode()
def test_the_path_is_one_cell_through_the_layers():
    network = tiny_network("qwen3_moe")
    inputs = {}
    with stirred(network, linear=False) as gates:
        for number, gate in gates.gates.items():
            gate.register_forward_pre_hook(lambda m, args, n=number: inputs.update({n: args[0]}))
        with routing_tape(network) as tape:
            logits(network)
        state = torch.zeros(14, 8)
        for number, layer in tape.records()[0].layers.items():
            gate = gates.gates[number]
            state = gru_by_hand(gates.path.cell, inputs[number] @ gate.down.weight.T, state)
            torch.testing.assert_close(layer.logits, state @ gate.up.weight.T, atol=1e-5, rtol=1e-5)
        layers, width = 3, 8
        count = layers * width * (64 + 4) + 6 * width**2 + 6 * width
        assert sum(w.numel() for w in gates.added().values()) == count


def test_without_the_path_every_layer_starts_anew():
    network = tiny_network("qwen3_moe")
    gates = stirred(network, strength=0.0)
    control = logits(network)
    gates.path.strength = 1.0
    joined = logits(network)
    assert not torch.allclose(joined, control)
    with torch.no_grad():
        gates.path.cell.weight_hh.zero_()  # the state reaches a cell through z * h, too
    assert not torch.equal(logits(network), control)
    gates.path.strength = 0.0
    held = copy.deepcopy(network)
    assert torch.equal(logits(held), logits(network))  # a copy has a path of its own
    assert held.model.layers[0].mlp.gate.path is not gates.path
    assert held.model.layers[0].mlp.gate.path is held.model.layers[2].mlp.gate.path


def test_a_closed_gate_leaves_the_experts_alike():
    network = tiny_network("olmoe")
    gates = stirred(network, linear=False)
    with torch.no_grad():
        gates.path.cell.bias_ih[8:16] = 90.0  # z = 1 and h = 0 below: h stays 0
    with routing_tape(network) as tape:
        logits(network)
    for layer in tape.records()[0].layers.values():
        assert torch.equal(layer.logits, torch.zeros_like(layer.logits))


def test_cutting_the_path_changes_that_layer_and_those_above_only():
    network = tiny_network("mixtral")
    gates = stirred(network)
    with routing_tape(network) as tape:
        logits(network)
        gates.path.cut = 1
        logits(network)
        gates.path.cut = -1
        with Steering(network, None, [Intervention("ban", 0, layer=1)]):
            logits(network)
    plain, cut, banned = (record.layers for record in tape.records())
    for other in (cut, banned):
        assert torch.equal(other[0].logits, plain[0].logits)
        assert not torch.allclose(other[2].logits, plain[2].logits)
    assert not torch.allclose(cut[1].logits, plain[1].logits)


def test_a_token_knows_nothing_of_later_ones_and_decoding_is_a_full_pass(loaded):
    model = loaded("qwen3_moe").clone()
    stirred(model.network)
    whole = logits(model.network)
    torch.testing.assert_close(
        logits(model.network, IDS[:, :9]), whole[:, :9], atol=1e-5, rtol=1e-4
    )
    session = model.session()
    rows = []
    for part in (IDS[0, :5], IDS[0, 5:6], IDS[0, 6:]):
        rows.append(session.forward(part.tolist()).logits)
        session.commit(range(len(part)))
    torch.testing.assert_close(torch.cat(rows), whole[0], atol=1e-5, rtol=1e-4)
    batch = logits(model.network, IDS.repeat(3, 1))
    torch.testing.assert_close(batch[1], whole[0], atol=1e-5, rtol=1e-4)


def test_a_pass_that_starts_in_the_middle_goes_on_with_the_states_of_its_rows(loaded):
    model = loaded("qwen3_moe").clone()
    gates = stirred(model.network)
    tokens = IDS[0].tolist()
    session = model.session()
    session.sync(tokens[:5])
    session.ascend(tokens[5:6], 1)
    one = session.forward(tokens[5:6]).logits
    torch.testing.assert_close(
        one[0], logits(model.network, IDS[:, :6])[0, -1], atol=1e-5, rtol=1e-4
    )
    session.commit([0])
    session.ascend(tokens[6:7], 1)
    session.ascend(tokens[7:8], 1)
    two = session.forward(tokens[6:8]).logits
    torch.testing.assert_close(
        two[1], logits(model.network, IDS[:, :8])[0, -1], atol=1e-5, rtol=1e-4
    )
    assert not len(gates.path.states)


def test_the_gradient_of_the_last_layers_routing_reaches_the_first():
    network = tiny_network("qwen3_moe")
    gates = stirred(network)
    found = []
    for strength in (1.0, 0.0):
        gates.path.strength = strength
        grown = [torch.randn(6, 64, generator=torch.Generator().manual_seed(n)) for n in range(3)]
        gates.path.begin()
        heard = [gates.gates[n](x)[0] for n, x in enumerate(grown)]
        gates.path.end()
        first = gates.gates[0].down.weight
        grad = torch.autograd.grad(heard[-1].sum(), first, allow_unused=True)[0]
        found.append(0.0 if grad is None else float(grad.abs().sum()))
    assert found[0] > 0 and found[1] == 0


def test_saved_weights_come_back_and_others_are_refused():
    one, two = tiny_network("qwen3_moe"), tiny_network("qwen3_moe")
    first = stirred(one)
    second = Recurrent(width=8).install(two)
    second.fill({name: weight.detach() for name, weight in first.added().items()})
    assert torch.equal(logits(one), logits(two))
    with pytest.raises(ModelError, match="other layers or widths"):
        Recurrent(width=4).install(tiny_network("qwen3_moe")).fill(dict(first.added()))
    with pytest.raises(BadInput, match="width=0"):
        RecurrentGates(two, 0)
    with pytest.raises(ModelError, match="no experts"):
        Recurrent().install(tiny_network("llama"))


def test_the_three_arms_train_alike(loaded):
    model = loaded("qwen3_moe")
    rows = torch.randint(0, 40, (8, 16), generator=torch.Generator().manual_seed(8))
    settings = MixtureSettings(steps=6, batch_rows=4, learning_rate=3e-3)
    plain = logits(model.network)
    arms = {name: train_arm(name, model, Recurrent(width=8), rows, rows, settings) for name in ARMS}
    for arm in arms.values():
        assert arm.tuning.steps == 6
        assert arm.loss_nats < arm.tuning.curve[0].loss_nats
    starts = [arm.tuning.curve[0].loss_nats for arm in arms.values()]
    assert starts == pytest.approx([starts[0]] * 3)
    moved = arms["recurrent"].gates.added()
    assert float(moved["2.up"].abs().max()) > 0
    assert torch.equal(logits(model.network), plain)
