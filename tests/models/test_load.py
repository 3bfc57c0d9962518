"""What a broken, foreign or unsafe checkpoint gets: one sentence, at once, with the fix."""

from __future__ import annotations

import copy
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.core.errors import BadInput, Mismatch, ModelError, NotFinite, WorkbenchError
from workbench.engine.run import RunSettings, generate
from workbench.models import load as load_module
from workbench.models.load import check_pair, load
from workbench.testing.checkpoints import edit_config


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """A copy of a good checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))


@pytest.fixture
def sharded(checkpoint, tmp_path) -> Path:
    copy = Path(shutil.copytree(checkpoint("llama", shard_bytes=200_000), tmp_path / "shards"))
    assert len(list(copy.glob("*.safetensors"))) > 1
    return copy


def refused(error, name, *words: str, **options) -> str:
    """``load(name)`` fails with ``error``: quickly, naming what was asked for, no chain below.

    A refusal takes some hundredths of a second, so that even a machine 100 times slower stays
    below 20 s; the hub's five retries alone wait for 23 s.
    """
    began = time.perf_counter()
    with pytest.raises(error) as raised:
        load(str(name), **options)
    assert time.perf_counter() - began < 20
    assert isinstance(raised.value, WorkbenchError)
    message = str(raised.value)
    for word in words:
        assert word in message, message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None, "a chain below"
    assert "\n" not in message
    return message


def test_a_good_copy_loads(folder, sharded):
    assert load(str(folder)).mode == load(str(sharded)).mode == "fused"


def test_a_missing_folder(tmp_path):
    refused(ModelError, tmp_path / "nowhere", "nowhere", "no such folder")
    refused(ModelError, "~/no-such-folder-of-models", "no such folder")


def test_a_folder_without_config(tmp_path):
    refused(ModelError, tmp_path, str(tmp_path), "config.json is missing")


def test_a_name_that_is_not_in_the_cache():
    refused(ModelError, "someone/no-such-model", "someone/no-such-model", "check the name")


def test_pickled_weights_are_never_read(folder):
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    message = refused(ModelError, folder, "pytorch_model.bin is a pickle", "can run code")
    assert "save_pretrained" in message


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refused(ModelError, folder, "no *.safetensors file")


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.3, 0.9, -1])
def test_a_half_written_file(folder, kept):
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    size = int(kept * len(data)) if isinstance(kept, float) else kept % len(data)
    weights.write_bytes(data[:size])
    refused(ModelError, folder, str(folder), "damaged or half-written", "copy it again")


def test_a_half_written_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(ModelError, sharded, "damaged or half-written")


def test_a_missing_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    refused(ModelError, sharded, shard.name, "is missing")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(ModelError, sharded, "model.safetensors.index.json is damaged")


def test_a_missing_tensor_is_not_made_up(folder):
    tensors = load_file(folder / "model.safetensors")
    gone = "model.layers.1.mlp.up_proj.weight"
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(ModelError, folder, "1 tensors are missing", gone)


def test_a_tensor_of_another_shape(folder):
    edit_config(folder, intermediate_size=96)
    refused(ModelError, folder, str(folder), "other shapes than its config.json says")


def test_remote_code_is_not_run(folder, tmp_path):
    mark = tmp_path / "ran"
    (folder / "modeling_other.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    edit_config(
        folder,
        model_type="other_model",
        auto_map={
            "AutoConfig": "modeling_other.OtherConfig",
            "AutoModelForCausalLM": "modeling_other.OtherModel",
        },
    )
    message = refused(ModelError, folder, str(folder), "its own repository", "never run")
    assert "trust_remote_code" not in message
    assert not mark.exists()


def test_a_type_that_nobody_knows(folder):
    edit_config(folder, model_type="llamma")
    refused(ModelError, folder, "llamma")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\x00\x01"])
def test_a_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    refused(ModelError, folder, str(folder))


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": "many"}, {"hidden_size": -8}, {"num_attention_heads": 0}],
)
def test_a_config_of_nonsense(folder, change):
    edit_config(folder, **change)
    refused(ModelError, folder, str(folder))


def test_no_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    refused(ModelError, folder, str(folder), "copy the tokenizer files again")


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    refused(ModelError, folder, str(folder), "copy the tokenizer files again")


def test_an_embedded_name_with_a_typing_error(tmp_path, monkeypatch):
    for name in ("target", "draft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr(load_module, "ZOO", tmp_path)
    refused(ModelError, "zoo:targt", "'zoo:targt'", "Did you mean 'zoo:target'?", "zoo:draft")


@pytest.mark.parametrize("dtype", ["int4", "fp16", "float64", ""])
def test_an_unknown_dtype(folder, dtype):
    refused(BadInput, folder, f"dtype={dtype!r}", "bfloat16", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "cpu:x", ""])
def test_an_unknown_device(folder, device):
    refused(BadInput, folder, f"device={device!r}", "'cuda:0'", device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_where_there_is_none(folder, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refused(BadInput, folder, f"device={device!r}", "0 CUDA devices; use 'cpu'", device=device)


def test_a_second_device_where_there_is_one(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    refused(BadInput, folder, "1 CUDA devices; use 'cpu' or 'cuda:0'", device="cuda:1")


def test_no_memory_for_the_weights(folder, monkeypatch):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    refused(ModelError, folder, "does not fit", "bfloat16")


def poison(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("model.layers.1.mlp.down_proj.weight", "layer 1"),
        ("model.layers.2.self_attn.o_proj.weight", "layer 2"),
        ("lm_head.weight", "the output head"),
    ],
)
def test_nan_names_the_layer(folder, name, where):
    poison(folder, name)
    with pytest.raises(NotFinite, match=f"comes from {where}\\."):
        generate(RunSettings(load(str(folder)), "abc"))


def test_nan_names_the_layer_of_a_family_that_is_not_listed(checkpoint, tmp_path):
    copy = Path(shutil.copytree(checkpoint("gptj"), tmp_path / "model"))
    poison(copy, "transformer.h.1.mlp.fc_out.weight")
    with pytest.raises(NotFinite, match="comes from layer 1"):
        generate(RunSettings(load(str(copy)), "abc"))


def test_nan_after_loading(checkpoint):
    model = load(str(checkpoint("llama")))
    assert model.mode == "fused"
    weight = model.anatomy.layers[2].mlp.up_proj.weight
    whole = weight.clone()
    weight[0] = torch.nan
    with pytest.raises(NotFinite, match="layer 2"):
        generate(RunSettings(model, "abc"))
    weight.copy_(whole)  # undone, the model works as before
    assert generate(RunSettings(model, "abc", max_new_tokens=4)).new_tokens


# -- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target_rows", "draft_rows"), [(260, 320), (320, 260), (257, 257)])
def test_padded_vocabularies_of_one_tokenizer_are_a_pair(loaded, target_rows, draft_rows):
    target = loaded("llama", vocab_size=target_rows)
    draft = loaded("llama", vocab_size=draft_rows, seed=4)
    check_pair(target, draft)
    settings = RunSettings(
        target, "pad pad pad", "draft_model", max_new_tokens=24, draft_model=draft
    )
    alone = generate(settings.change(drafter="none"))
    assert generate(settings).new_tokens == alone.new_tokens


def test_different_tokenizers_are_refused(loaded):
    target, draft = loaded("llama"), loaded("llama", shift=1)
    with pytest.raises(Mismatch) as raised:
        RunSettings(target, "abc", "draft_model", draft_model=draft)
    message = str(raised.value)
    for word in (target.name, draft.name, "different tokenizers", "same model family"):
        assert word in message
    assert "prompt_lookup" in message


def test_one_more_token_is_another_tokenizer(loaded, checkpoint, tmp_path):
    copy = Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))
    path = copy / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "id": 257, "content": "<more>"})
    path.write_text(json.dumps(data))
    with pytest.raises(Mismatch, match="<more>"):
        check_pair(loaded("llama"), load(str(copy)))


def test_a_pair_is_looked_through_once_and_again_after_a_token_was_added(loaded, monkeypatch):
    target, draft = loaded("llama"), loaded("llama", seed=4)
    check_pair(target, draft)
    with monkeypatch.context() as patch:
        for model in (target, draft):
            patch.setattr(type(model.tokenizer), "get_vocab", None)
        check_pair(target, draft)
    other = copy.copy(draft)
    other.tokenizer = copy.deepcopy(draft.tokenizer)
    check_pair(target, other)
    other.tokenizer.add_tokens(["<another>"])
    with pytest.raises(Mismatch, match="<another>"):
        check_pair(target, other)
