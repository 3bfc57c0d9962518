"""RMoE where its released code slips: dense layers, the control, the start, layers run again."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from stirred_gates import stirred
from torch.utils.checkpoint import checkpoint

from workbench.core.errors import ModelError
from workbench.models.routers import routing_tape
from workbench.moe.recurrent import Recurrent
from workbench.testing.checkpoints import tiny_network
from workbench.training.moe_finetune import MixtureSettings
from workbench.training.rmoe import ARMS, train_arm

IDS = torch.randint(0, 250, (1, 10), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def heard(network, gates):
    """What each gate was given, and the logits that it gave."""
    inputs: dict[int, torch.Tensor] = {}
    hooks = [
        gate.register_forward_pre_hook(lambda m, args, n=number: inputs.update({n: args[0]}))
        for number, gate in gates.gates.items()
    ]
    with routing_tape(network) as tape:
        network(input_ids=IDS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return inputs, {n: layer.logits for n, layer in tape.records()[0].layers.items()}


@torch.inference_mode()
@pytest.mark.parametrize(("strength", "cut"), [(0.0, -1), (0.3, -1), (1.0, 1), (0.3, 2)])
def test_the_control_has_a_state_of_zero_and_strength_scales_it(strength, cut):
    """At strength 0 every layer's cell starts from zero, to the last bit; at the cut that one's."""
    network = tiny_network("qwen3_moe")
    gates = stirred(network, strength=strength, cut=cut, linear=False)
    inputs, logits = heard(network, gates)
    state = torch.zeros(10, 8)
    for number, gate in gates.gates.items():
        if number == cut or strength == 0:
            state = torch.zeros(10, 8)
        state = gates.path.cell(gate.down(inputs[number].reshape(-1, 64)), strength * state)
        assert torch.equal(logits[number], gate.up(state))


@torch.inference_mode()
def test_the_linear_router_is_added_to_and_not_replaced():
    network = tiny_network("olmoe")
    gates = stirred(network)
    inputs, logits = heard(network, gates)
    state = torch.zeros(10, 8)
    for number, gate in gates.gates.items():
        x = inputs[number].reshape(-1, 64)
        state = gates.path.cell(gate.down(x), state)
        wanted = x @ gate.weight.T + gate.up(state)
        torch.testing.assert_close(logits[number], wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_layer_without_experts_passes_the_state_on():
    network = tiny_network("qwen3_moe", num_hidden_layers=4, mlp_only_layers=[0, 2])
    gates = stirred(network, linear=False)
    assert list(gates.gates) == [1, 3]
    inputs, logits = heard(network, gates)
    state = torch.zeros(10, 8)
    for number, gate in gates.gates.items():
        state = gates.path.cell(gate.down(inputs[number].reshape(-1, 64)), state)
        torch.testing.assert_close(logits[number], gate.up(state), atol=1e-5, rtol=1e-5)
    assert not len(gates.path.states)  # nothing lingers after the last layer with experts


@pytest.mark.parametrize("linear", [True, False])
def test_where_the_weights_start(linear):
    network = tiny_network("mixtral", hidden_size=64)
    gates = Recurrent(width=64, linear=linear).install(network)
    cell = gates.path.cell
    for weight in cell.parameters():  # even in +-1/sqrt(width)
        assert float(weight.detach().abs().max()) <= 1 / 8
    assert float(cell.weight_hh.detach().std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
    down, up = (
        torch.cat([getattr(gate, name).weight for gate in gates.gates.values()])
        for name in ("down", "up")
    )
    assert float(down.detach().std()) == pytest.approx(64**-0.5 if linear else 0.02, rel=0.05)
    if linear:
        assert not up.any()
    else:
        assert float(up.detach().std()) == pytest.approx(0.02, rel=0.1)
    first = gates.gates[0].down.weight
    assert not torch.equal(first, gates.gates[1].down.weight)  # a projection of its own a layer
    again = Recurrent(width=64, linear=linear).install(tiny_network("mixtral"))
    assert torch.equal(again.gates[0].down.weight, first)


def test_the_knobs_defaults():
    made = Recurrent()
    assert (made.width, made.strength, made.cut, made.linear) == (32, 1.0, -1, True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused_and_not_quietly_wrong(reentrant):
    """It runs the layers again from the last one down, when their states are gone."""
    network = tiny_network("qwen3_moe").train()
    gates = stirred(network)
    network(input_ids=IDS, use_cache=False).logits.sum().backward()
    wanted = gates.gates[0].down.weight.grad.clone()
    assert bool(wanted.any())
    layers = network.model.layers  # asked for without the library's verb, which is being renamed
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=reentrant)
    network.enable_input_require_grads()
    logits = network(input_ids=IDS, use_cache=False).logits
    with pytest.raises(ModelError, match="gradient checkpointing"):
        logits.sum().backward()
    for layer in layers:
        layer.gradient_checkpointing = False
    network.zero_grad()
    network(input_ids=IDS, use_cache=False).logits.sum().backward()
    torch.testing.assert_close(gates.gates[0].down.weight.grad, wanted)


def test_the_rows_of_a_draft_tree_do_not_mix_their_states(loaded):
    model = loaded("qwen3_moe").clone()
    stirred(model.network)
    prefix, tree, parent = IDS[0, :5].tolist(), [5, 9, 17, 30, 41], [-1, 0, 0, 1, 2]
    session = model.session()
    session.sync(prefix)
    rows = session.forward(tree, parent).logits
    for row in range(len(tree)):
        path, at = [], row
        while at >= 0:
            path, at = [tree[at], *path], parent[at]
        with torch.inference_mode():
            ids = torch.tensor([[*prefix, *path]])
            alone = model.network(input_ids=ids, use_cache=False).logits[0, -1]
        torch.testing.assert_close(rows[row], alone, atol=1e-5, rtol=1e-4)


def test_the_control_that_is_trained_has_no_path(loaded):
    """Its weights on the state get no gradient, those of the recurrent one do."""
    model = loaded("qwen3_moe")
    rows = torch.randint(0, 40, (8, 16), generator=torch.Generator().manual_seed(8))
    settings = MixtureSettings(steps=4, batch_rows=4, learning_rate=1e-2)
    begun = Recurrent(width=8).install(tiny_network("qwen3_moe"), settings.seed)
    moved = {}
    for name in ARMS:
        arm = train_arm(name, model, Recurrent(width=8, strength=0.7), rows, rows[:1], settings)
        if name == "linear":
            assert arm.gates is None
            continue
        hidden = arm.gates.path.cell.weight_hh
        moved[name] = float((hidden - begun.path.cell.weight_hh).abs().max())
        assert arm.gates.path.strength == {"recurrent": 0.7, "no recurrence": 0.0}[name]
        assert arm.gates.added().keys() == begun.added().keys()
    assert moved["no recurrence"] == 0 < moved["recurrent"]
