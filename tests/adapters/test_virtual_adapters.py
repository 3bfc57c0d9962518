"""Virtual tokens as adapters: in company, by strength, in pictures, on disk, and bad input."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from adapters.conftest import attach, logits
from peft import PeftModel, PeftModelForCausalLM, PrefixTuningConfig, get_peft_model

from workbench.core.errors import BadKnob, Mismatch
from workbench.core.method import make_method
from workbench.models.adapter_forms import peft_config, tuner_types
from workbench.models.adapting import Adapters
from workbench.models.updates import deltas, layer_norms, spectra
from workbench.testing.tiny_network import tiny_network


def test_several_stand_in_a_row_and_beside_a_lora(adapters):
    """Two prefixes are one prefix of both; a LoRA beside one is peft's forward with that LoRA."""
    base = copy.deepcopy(adapters.model.network)
    attach(adapters, "one", "prefix", tokens=2)
    attach(adapters, "two", "prefix", tokens=3, seed=1)
    rows = [adapters.state(name)["prompt_embeddings"] for name in ("one", "two")]
    config = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    whole = PeftModelForCausalLM(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    whole.prompt_encoder["default"].embedding.weight.data = torch.cat(rows)
    ids = torch.randint(0, 5, (1, 9))
    with torch.no_grad():
        both = adapters.model.network(input_ids=ids, use_cache=False).logits
        assert torch.allclose(both, whole(input_ids=ids).logits, atol=1e-9)
    adapters.detach("two")
    attach(adapters, "l", "lora", r=2)
    with torch.no_grad():
        mixed = adapters.model.network(input_ids=ids, use_cache=False).logits
        adapted = get_peft_model(base, adapters.config("l"), autocast_adapter_dtype=False)
        own = {k.replace(".weight", ".default.weight"): v for k, v in adapters.state("l").items()}
        assert not adapted.load_state_dict(own, strict=False).unexpected_keys
        config = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
        inner = adapted.base_model.model
        whole = PeftModelForCausalLM(inner, config, autocast_adapter_dtype=False)
        whole.prompt_encoder["default"].embedding.weight.copy_(rows[0])
        assert torch.allclose(mixed, whole(input_ids=ids).logits, atol=1e-9)
    session = adapters.model.session()
    session.sync(ids[0, :4].tolist())
    assert torch.allclose(session.forward(ids[0, 4:].tolist()).logits, mixed[0, 4:], atol=1e-9)


def test_strength_counts_each_token_that_often(adapters):
    """Each token twice at a quarter is each once at a half, where text begins at one place."""
    attach(adapters, "one", "prefix", tokens=3)
    attach(adapters, "room", "prefix", tokens=3, seed=1)
    adapters.set_strength("one", 0.5)
    adapters.set_strength("room", 1e-30)  # takes its places, and no more
    half = logits(adapters)
    row = torch.randint(0, 5, (1, 9), generator=torch.Generator().manual_seed(1))
    for mode in ("fused", "walk", "stock"):
        adapters.model.mode = mode
        session = adapters.model.session()
        with torch.no_grad():
            wanted = adapters.model.network(input_ids=row, use_cache=False).logits[0]
        session.sync(row[0, :4].tolist())
        got = [session.forward(row[0, 4:].tolist(), (-1, 0, 1, 2, 3)).logits]
        session.commit(range(4))
        got.append(session.forward(row[0, 8:].tolist()).logits)  # a single row
        assert torch.allclose(torch.cat(got), wanted[[4, 5, 6, 7, 8, 8]], atol=1e-9)
    adapters.model.mode = "fused"
    twice = adapters.state("one")["prompt_embeddings"].repeat(2, 1)
    adapters.detach()
    attach(adapters, "two", "prefix", tokens=6)
    adapters.fill("two", {"prompt_embeddings": twice})
    adapters.set_strength("two", 0.25)
    assert torch.allclose(logits(adapters), half, atol=1e-9)
    with pytest.raises(BadKnob, match="alike in all layers"):
        adapters.set_strength("two", 1.0, {1: 0.5})
    with pytest.raises(BadKnob, match=r"\[0, 1.5\]"):
        adapters.set_strength("two", 2.0)


def test_what_is_drawn_of_it_is_its_keys_and_values(adapters):
    attach(adapters, "p", "prefix", tokens=4)
    table = adapters.state("p")["prompt_embeddings"]  # [n, layer x (keys, values) x width]
    keys, values = table.double().view(4, 3, 2, 8)[:, 1].unbind(1)
    spectrum, norms = spectra(adapters, "p", 1), layer_norms(adapters, "p")
    assert set(norms) == {0, 1, 2} and set(spectrum) == {"virtual keys", "virtual values"}
    assert norms[1] == pytest.approx(float(keys.norm().hypot(values.norm())), rel=1e-5)
    assert spectrum["virtual values"] == pytest.approx(torch.linalg.svdvals(values).tolist())
    with pytest.raises(Mismatch, match="nothing to merge"):
        deltas(adapters, "p")
    for operation in ("merge", "breadcrumbs"):
        with pytest.raises(Mismatch):
            make_method("operation", operation).combine(adapters, ["p"], "x")


@pytest.mark.parametrize("kind", ["plain", "project", "P_TUNING"])
def test_checkpoints_go_both_ways(adapters, tmp_path, kind):
    if kind == "P_TUNING":
        adapters.attach(peft_config(kind, num_virtual_tokens=3), "p")
    else:
        attach(adapters, "p", "prefix", tokens=3, project=kind == "project")
    wanted = logits(adapters)
    adapters.save("p", tmp_path / "ours")
    adapters.detach()
    base = tiny_network(5, layers=3, seed=4).network
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "ours"), autocast_adapter_dtype=False)
    ids = torch.randint(0, 5, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=ids).logits[:, -9:], wanted, atol=1e-9)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    adapters.load(tmp_path / "theirs", "again")
    assert torch.equal(logits(adapters), wanted)


def test_what_fits_no_context_or_another_base_is_refused(adapters, tmp_path):
    base = logits(adapters)
    attach(adapters, "p", "prefix", tokens=3)
    folder = adapters.save("p", tmp_path / "p")
    adapters.detach()
    other = Adapters(tiny_network(5, layers=2, seed=1))
    with pytest.raises(Mismatch, match="another base: num_layers is 3 there and 2"):
        other.load(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "num_virtual_tokens": 4}))
    with pytest.raises(Mismatch, match=r"\(3, 48\) there and would have to be \(4, 48\)"):
        adapters.load(folder)
    for count in (None, 0, 1024):
        with pytest.raises(BadKnob, match="room for 1 to 1023"):
            adapters.attach(peft_config("PREFIX_TUNING", num_virtual_tokens=count), "x")
    with pytest.raises(Mismatch, match="not served here"):
        adapters.attach(peft_config("CARTRIDGE", num_virtual_tokens=4), "x")
    text = {"prompt_tuning_init_text": "a", "tokenizer_name_or_path": "b"}
    text_start = peft_config(
        "PROMPT_TUNING", num_virtual_tokens=2, prompt_tuning_init="TEXT", **text
    )
    with pytest.raises(BadKnob, match="SAMPLE_VOCAB"):
        adapters.attach(text_start, "x")
    assert adapters.names == () and torch.equal(logits(adapters), base)
    assert {"PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"} <= set(tuner_types())
