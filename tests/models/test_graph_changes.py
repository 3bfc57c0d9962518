"""What recordings do when weights, modules or hooks change, and when they cannot be trusted."""

from __future__ import annotations

import copy

import pytest
import torch
from plain import PARENT, check_next, deviation, some_tokens
from recorded import Counted, recorded, walked

from workbench.core.errors import NotFinite
from workbench.models import graphs, probe
from workbench.models.recording import CalledAgain


def test_weights_changed_in_place_are_followed_without_a_new_recording(loaded):
    model, counted = recorded(loaded("llama").clone())
    ours, theirs = model.session(), walked(model).session()
    for session in (ours, theirs):
        session.sync(some_tokens(9))
        session.forward([5])
    made, replays = counted.made, counted.replays
    before = ours.forward([6]).logits
    with torch.inference_mode():
        model.anatomy.layers[0].mlp.down_proj.weight[0, 0] += 1
    after = ours.forward([6]).logits
    assert deviation(after, theirs.forward([6]).logits) <= 1e-5
    assert not torch.equal(before, after)
    assert (counted.made, counted.replays) == (made, replays + 2)


def test_hooks_and_replaced_modules_are_the_walks(loaded):
    model, counted = recorded(loaded("llama").clone())
    session = model.session()
    session.sync(some_tokens(9))
    plain = session.forward([5]).logits
    layer = model.anatomy.layers[0]
    handle = layer.mlp.register_forward_hook(lambda module, args, output: output * 2)
    assert not torch.equal(session.forward([5]).logits, plain)
    handle.remove()
    assert torch.equal(session.forward([5]).logits, plain)
    kept = layer.mlp.up_proj
    layer.mlp.up_proj = torch.nn.Sequential(kept, torch.nn.Tanh())
    changed = session.forward([5]).logits
    assert not torch.equal(changed, plain)
    for _ in range(8):
        assert deviation(session.forward([5]).logits, changed) <= 1e-5
    assert counted.made == 2, "what torch itself made of it is recorded once it has settled"
    layer.mlp.up_proj = kept
    for _ in range(8):
        again = session.forward([5]).logits
    assert torch.equal(again, plain)


def test_modules_of_others_are_the_walks(loaded):
    class Gate(torch.nn.Module):
        """What it does may be another thing at every pass."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.factor = inner, 1.0

        def forward(self, x):
            return self.inner(x) * self.factor

    model, counted = recorded(loaded("llama").clone())
    layer = model.anatomy.layers[0]
    layer.mlp.up_proj = gate = Gate(layer.mlp.up_proj)
    session = model.session()
    session.sync(some_tokens(9))
    before = session.forward([5]).logits
    gate.factor = 3.0
    assert not torch.equal(session.forward([5]).logits, before)
    assert counted.made == 0
    assert "Gate is no module of transformers or torch" in model.graphs.reason


def test_weights_that_moved_are_noticed_when_a_session_begins(loaded):
    model, counted = recorded(loaded("llama").clone())
    session = model.session()
    session.sync(some_tokens(9))
    session.forward([5])
    norm = model.anatomy.layers[0].input_layernorm.weight
    norm.data = norm.data * 2
    session.forward([5])
    assert counted.made == 1
    other = model.session()
    session.forward([5])
    assert counted.made == 2, "a graph would read what was there before"
    other.sync(some_tokens(9))
    check_next(other, 5)
    assert counted.made == 3
    assert model.graphs.ready(1)


# -- refusals -------------------------------------------------------------------------------------


def refusal(model, recorder) -> str:
    """Why recordings were given up; what the session says is right all the same."""
    other, _ = recorded(model, Counted(recorder))
    session = other.session()
    session.sync(some_tokens(9))
    for _ in range(2):
        check_next(session, 5)
    assert not other.graphs.ready(1)
    return other.graphs.refused


def test_a_pass_that_cannot_be_recorded_is_walked(loaded):
    def fails(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    said = refusal(loaded("llama"), fails)
    assert said == (
        "a pass cannot be recorded (RuntimeError: operation not permitted when stream is capturing)"
    )


def test_a_recording_that_differs_is_walked(loaded):
    class Wrong(CalledAgain):
        def replay(self):
            return tuple(states + 0.1 * states.roll(1, -1) for states in super().replay())

    assert "differs by" in refusal(loaded("llama"), Wrong)


def proven(model) -> str:
    """What the probe at load says of recordings of this model."""
    other, _ = recorded(model)
    other.graphs.refused = graphs.UNPROVEN
    assert not other.graphs.ready(1)
    probe.choose_mode(other)
    assert other.mode == "fused", "recordings never decide which walk is taken"
    return other.graphs.refused


def test_the_probe_at_load_lets_recordings_run(loaded):
    assert proven(loaded("llama")) == ""


@pytest.mark.parametrize("buffer", ["slots", "positions", "mask"])
def test_the_probe_at_load_sees_a_wrong_buffer(loaded, monkeypatch, buffer):
    """Recording and static pass agree then, with each other only."""
    fill = graphs.StaticPass.fill

    def wrong(self, rows):
        fill(self, rows)
        if buffer == "mask":
            self.mask.zero_()
        else:
            getattr(self, buffer).add_(1)

    monkeypatch.setattr(graphs.StaticPass, "fill", wrong)
    assert "differs by" in proven(loaded("llama"))


def test_a_clone_is_as_proven_as_its_model(loaded, monkeypatch):
    model = copy.copy(loaded("llama"))
    for name in ("native", "graphs", "torch_device"):
        model.__dict__.pop(name, None)
    monkeypatch.setattr(type(model), "torch_device", torch.device("cuda"))
    assert model.graphs.refused == graphs.UNPROVEN
    model.graphs.refused = ""
    assert model.clone().graphs.refused == ""
    monkeypatch.setenv(graphs.SWITCH, "0")
    other = copy.copy(model)
    other.__dict__.pop("graphs")
    assert other.graphs is None


def test_numbers_that_are_not_finite_do_not_stay_in_the_cache(loaded):
    """Slots out of sight weigh nothing; a NaN left in one would still be everywhere."""
    model, counted = recorded(loaded("llama").clone())
    session = model.session()
    session.sync(some_tokens(9))
    weight = model.anatomy.layers[0].self_attn.v_proj.weight
    before = weight.clone()
    with torch.inference_mode():
        weight.fill_(torch.nan)
    assert not bool(torch.isfinite(session.forward(some_tokens(8), PARENT).logits).any())
    assert counted.made == 0, "there was nothing to compare a recording with"
    raise_it = session.explain_not_finite([1])
    assert isinstance(raise_it, NotFinite)
    with torch.inference_mode():
        weight.copy_(before)
    check_next(session, 5)
    assert counted.made == 1, "a NaN left would be the walk's for ever"
    assert not model.graphs.refused


def test_only_so_many_recordings_are_kept(loaded, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_KEPT", 2)
    model, counted = recorded(loaded("llama"))
    session = model.session()
    session.sync(some_tokens(9))
    for n in (1, 2, 1, 4, 1, 2):  # 2 goes for 4, as 1 was used since; then 4 goes
        session.forward(some_tokens(n))
    assert counted.made == 4
    assert [bucket.rows for bucket in session._cache.recorded.passes] == [1, 2]
