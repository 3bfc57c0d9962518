"""Adapters in place: several at once, forms from peft's help, strengths, and bad input."""

from __future__ import annotations

import json

import pytest
import torch
from adapters.conftest import IDS, attach, logits

from workbench.core.errors import BadInput, BadKnob, Mismatch, ModelError, UnknownMethod
from workbench.core.method import make_method
from workbench.models.adapter_forms import config_knobs, peft_config, tuner_types
from workbench.models.adapting import Adapters
from workbench.models.load import load
from workbench.models.updates import deltas, from_deltas, layer_norms, spectra
from workbench.testing.tiny_network import tiny_network


def test_kinds_can_be_mixed_and_taken_off_one_by_one(adapters):
    base = logits(adapters)
    attach(adapters, "a", r=2)
    attach(adapters, "i", "ia3")
    attach(adapters, "m", "mola", r=2, experts="3")
    attach(adapters, "b", r=2, seed=1)
    everything = logits(adapters)
    states = {name: adapters.state(name) for name in adapters.names}
    assert not any("base_layer" in key for state in states.values() for key in state)
    assert len(states["a"]) == len(states["b"]) == 2 * 2 * 3
    adapters.set_active(["a", "m", "b"])
    without = logits(adapters)
    adapters.detach("i")
    assert torch.equal(logits(adapters), without) and not torch.equal(without, everything)
    for name in ("a", "m", "b"):
        assert all(torch.equal(v, states[name][k]) for k, v in adapters.state(name).items())
        adapters.detach(name)
    assert torch.equal(logits(adapters), base)


def test_two_loras_add_up(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "b", r=3, seed=1)
    both = logits(adapters)
    made = make_method("operation", "merge", way="cat", weights="1,1")
    made.combine(adapters, ["a", "b"], "ab")
    adapters.set_active(["ab"])
    assert torch.allclose(logits(adapters), both, atol=1e-9)


def test_strength_of_what_has_no_scale_is_a_blend(adapters):
    attach(adapters, "i", "ia3")
    adapters.set_strength("i", 0.5)
    half, update = logits(adapters), deltas(adapters, "i")
    adapters.detach()
    with torch.no_grad():
        for path, delta in update.items():
            adapters.model.network.get_submodule(path).weight.add_(delta)
    assert torch.allclose(logits(adapters), half, atol=1e-9)


def test_two_that_multiply_one_output_share_a_strength(adapters):
    attach(adapters, "i", "ia3")
    attach(adapters, "j", "ia3", seed=1)
    with pytest.raises(Mismatch, match="one strength together"):
        adapters.set_strength("i", 0.5)


def test_norms_and_spectra_are_those_of_the_updates(adapters):
    attach(adapters, "a", r=2)
    update = deltas(adapters, "a")
    norms, spectrum = layer_norms(adapters, "a"), spectra(adapters, "a", 1)
    inside = [d for path, d in update.items() if ".layers.1." in path]
    assert norms[1] == pytest.approx(float(sum(d.square().sum() for d in inside)) ** 0.5, rel=1e-5)
    assert set(spectrum) == {"q_proj", "v_proj"}
    assert all(values[1] > 1e-3 > values[2] for values in spectrum.values()), "rank 2"


def test_updates_become_a_lora(adapters):
    attach(adapters, "i", "ia3")
    wanted, update = logits(adapters), deltas(adapters, "i")
    assert from_deltas(adapters, update, 0, "whole") < 1e-6
    adapters.set_active(["whole"])
    assert torch.allclose(logits(adapters), wanted, atol=1e-5)
    assert from_deltas(adapters, update, 2, "low") > 0.1


def test_forms_come_from_the_configurations_own_help():
    lora = {knob.name: knob for knob in config_knobs("LORA")}
    assert lora["r"].default == 8 and "attention dimension" in lora["r"].help
    assert lora["use_dora"].kind == "bool" and "DoRA" in lora["use_dora"].help
    assert "pissa" in lora["init_lora_weights"].choices
    assert {"target_modules", "peft_type"}.isdisjoint(lora)
    assert {"LORA", "IA3", "LOHA", "OFT", "MOLA", "GROWING"} <= set(tuner_types())
    for name in tuner_types():
        for knob in config_knobs(name):
            assert knob.help, (name, knob.name)
            assert knob.check(knob.default, name) == knob.default or knob.default is None
    with pytest.raises(UnknownMethod, match="Did you mean 'LORA'"):
        config_knobs("LORE")


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "VERA", "HRA", "LN_TUNING", "OSF", "LORA"])
def test_any_tuner_of_peft_comes_off_without_a_trace(adapters, kind):
    adapters.model.network.float()  # some initialisations know no double
    base = logits(adapters)
    where = {} if kind == "LN_TUNING" else {"target_modules": ["q_proj", "v_proj"]}
    special = {"VERA": {"r": 4}, "LORA": {"r": 4, "init_lora_weights": "olora"}}.get(kind, {})
    adapters.attach(peft_config(kind, **where, **special), "x")
    assert torch.isfinite(logits(adapters)).all()
    adapters.detach()
    assert torch.equal(logits(adapters), base)


def test_ranks_targets_and_names_that_cannot_be(adapters):
    base = logits(adapters)
    shapes = adapters.shapes
    with pytest.raises(BadKnob, match=r"r=99: model.layers.0.self_attn.q_proj is 16 x 16"):
        adapters.attach(make_method("adapter", "lora", r=99).config(shapes), "x")
    with pytest.raises(BadKnob, match="Did you mean 'q_proj'"):
        adapters.attach(peft_config("LORA", target_modules=["q_prj"]), "x")
    with pytest.raises(BadKnob, match="Did you mean 'up_proj'"):
        make_method("adapter", "lora", modules="upproj").config(shapes)
    for name in ("", "a.b", "layers"):
        with pytest.raises(BadInput, match="choose another"):
            adapters.attach(make_method("adapter", "lora", r=2).config(shapes), name)
    with pytest.raises(BadInput, match="not attached"):
        adapters.set_strength("x", 1.0)
    with pytest.raises(BadKnob, match=r"\[0, 1.5\]"):
        attach(adapters, "x", r=2)
        adapters.set_strength("x", 2.0)
    adapters.detach()
    assert adapters.names == () and torch.equal(logits(adapters), base)


def test_a_failure_keeps_the_others(adapters):
    attach(adapters, "a", r=2)
    before = logits(adapters)
    with pytest.raises(BadKnob):
        adapters.attach(make_method("adapter", "lora", r=99).config(adapters.shapes), "x")
    assert adapters.names == ("a",) and torch.equal(logits(adapters), before)


def test_an_adapter_of_another_base_is_refused(adapters, tmp_path):
    attach(adapters, "a", r=2)
    before = logits(adapters)
    adapters.save("a", tmp_path / "three")
    wide = Adapters(tiny_network(5, layers=2, seed=1))
    base = wide.model.network(input_ids=IDS, use_cache=False).logits
    with pytest.raises(Mismatch, match="made for another base.*has no place for.*layers.2"):
        wide.load(tmp_path / "three")
    assert torch.equal(wide.model.network(input_ids=IDS, use_cache=False).logits, base)
    target = Adapters(load("zoo:target"))
    with pytest.raises(Mismatch, match=r"\(2, 16\) there and would have to be \(2, 320\)"):
        target.load(tmp_path / "three")
    assert target.names == () and torch.equal(logits(adapters), before)


def test_files_that_are_none(adapters, tmp_path):
    attach(adapters, "a", r=2)
    folder = adapters.save("a", tmp_path / "a")
    adapters.detach()
    with pytest.raises(ModelError, match=r"no adapter_config.json"):
        adapters.load(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORRA"}))
    with pytest.raises(ModelError, match="Did you mean 'LORA'"):
        adapters.load(folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(ModelError, match="damaged"):
        adapters.load(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model.bin is a pickle"):
        adapters.load(folder)


def test_ours_load_in_plain_peft(adapters, tmp_path):
    from peft import PeftModel

    for method in ("lora", "mola", "increlora"):
        attach(adapters, "a", method, **({} if method == "increlora" else {"r": 2}))
        wanted = logits(adapters)
        folder = adapters.save("a", tmp_path / method)
        adapters.detach()
        plain = PeftModel.from_pretrained(tiny_network(5, layers=3, seed=4).network, str(folder))
        with torch.no_grad():
            got = plain(input_ids=IDS, use_cache=False).logits
        assert torch.allclose(got, wanted, atol=1e-9), method
