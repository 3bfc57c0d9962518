"""An inflated checkpoint says what its source says, and a half-written one is refused."""

from __future__ import annotations

import errno
import json
import shutil
import weakref

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from workbench.core.errors import BadInput, Mismatch, ModelError
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.zoo import inflate_command
from workbench.zoo.inflate import (
    SIZES,
    check,
    compare,
    config_of,
    inflate,
    read_source,
    widening_of,
)
from workbench.zoo.widening import Shape, Tensors

# Wider by two copies and a rest, larger heads and groups, more key heads, neurons and one layer.
GROWN = Shape(hidden=720, head_size=64, heads=18, kv_heads=6, inner=900, layers=9)
TINY = Shape(hidden=208, head_size=48, heads=16, kv_heads=4, inner=100, layers=4)
PROMPT = "class Stack:\n    def push(self, item):\n"


@pytest.fixture(scope="module")
def source():
    return load("zoo:target")


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("inflated") / "grown"
    inflate(source, GROWN, out)
    yield out
    shutil.rmtree(out)  # pytest would keep it for three runs


@pytest.fixture(scope="module")
def made(folder):
    return load(str(folder))


def text(model, drafter: str = "none", **changes) -> list[int]:
    settings = RunSettings(model, PROMPT, drafter, **changes)
    return list(generate(settings.change(max_new_tokens=200)).new_tokens)


# the same function


def test_logits_are_the_sources(source, made):
    found = compare(source, made)
    assert found.largest_difference < 1e-4
    assert found.same_argmax_ratio == 1
    assert made.mode == source.mode == "fused" and not made.reason
    assert made.compiled == source.compiled


def test_the_check_notices_another_function(folder):
    found = check(load("zoo:draft"), folder, tokens=16)
    assert not found["passed"] and found["largest_difference"] > 0.1


def test_greedy_text_is_the_sources_plain_and_drafted(source, made):
    wanted = text(source)
    assert len(wanted) == 200
    assert text(made) == wanted
    assert text(made, "draft_model", draft_model=load("zoo:draft")) == wanted


@torch.inference_mode()
def test_cached_decoding_is_the_full_forward(made):
    ids = torch.randint(0, 4096, (24,), generator=torch.Generator().manual_seed(3)).tolist()
    whole = made.network(torch.tensor([ids])).logits[0]
    session = made.session()
    for place, token in enumerate(ids):
        row = session.forward([token]).logits[-1]
        assert float((row - whole[place]).abs().max()) < 1e-4
        session.commit([0])


@torch.inference_mode()
def test_transformers_loads_what_was_made_to_the_last_bit(source, folder):
    fresh = AutoModelForCausalLM.from_pretrained(folder)
    wanted: dict = {}
    tensors = Tensors(widening_of(source.network.config, GROWN), 0, torch.float32)
    for part in tensors.parts(dict(source.network.state_dict())):
        wanted |= part
    state = fresh.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in state)
    ids = torch.arange(3, 40)[None]
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(fresh(ids).logits, again(ids).logits)


@torch.inference_mode()
def test_layers_beyond_the_sources_add_exactly_nothing(source, made, folder):
    ids = torch.arange(3, 40)[None]
    states = made.network.model(ids, output_hidden_states=True).hidden_states
    before = made.network.model.norm(states[8])  # the ninth layer's input
    assert torch.equal(before, states[-1])
    card = json.loads((folder / "card.json").read_text())
    assert card["inert_layers"] == [8]
    assert made.network.model.layers[8].mlp.gate_proj.weight.std() > 0.01, "it costs, though"


def test_bfloat16_agrees_as_often_as_the_source_in_bfloat16(source, tmp_path):
    """Both round; two models of the same function may not differ more than rounding does."""
    shape = Shape(hidden=640, head_size=64, heads=10, kv_heads=5, inner=864, layers=8)
    inflate(source, shape, tmp_path / "half", dtype="bfloat16")
    found = check(source, tmp_path / "half", tokens=256)
    assert found["same_argmax_ratio"] > 0.95
    assert found["same_argmax_ratio"] > found["rounded_source_same_argmax_ratio"] - 0.02
    assert found["passed"]
    assert found["largest_difference"] > 1e-3, "bfloat16 was asked for"


# each rule is needed


# sizes


@pytest.mark.parametrize(
    ("size", "millions"), [("109M", 109), ("290M", 290), ("1B", 981), ("3B", 2830), ("7B", 7000)]
)
def test_a_size_has_the_parameters_that_it_names(size, millions, source):
    shape = SIZES[size]
    tied = shape.parameters(4096, tied=True)
    assert abs(tied / 1e6 / millions - 1) < 0.01
    widening = widening_of(source.network.config, shape)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            config_of(source.network.config, widening, torch.bfloat16)
        )
    count = sum(weight.numel() for weight in network.parameters())
    assert count == shape.parameters(4096, widening.tied) == tied + 4096 * shape.hidden


def test_the_card_counts_what_was_written(made, folder):
    card = json.loads((folder / "card.json").read_text())
    state = made.network.state_dict()
    assert card["parameters"] == made.parameters == GROWN.parameters(4096, tied=False)
    assert card["zeros"] == sum(int((tensor == 0).sum()) for tensor in state.values())
    assert card["weights_bytes"] == 4 * card["parameters"]
    assert card["source_fingerprint"] == load("zoo:target").fingerprint
    page = (folder / "README.md").read_text()
    assert "zoo:target" in page and "Layers 8 to 8 add exactly nothing" in page
    assert "Query heads 0, 1, 3, 4, 6, 7" in page


# heads and drafts


@pytest.mark.parametrize(
    ("family", "name"), [("drafter", "medusa"), ("drafter", "eagle"), ("policy", "specdec_pp")]
)
def test_heads_of_the_source_are_refused_and_named(made, family, name):
    """Their tensors read a stream of another width; the fingerprint says so first."""
    settings = RunSettings(made, PROMPT, "draft_model", draft_model=load("zoo:draft"))
    with pytest.raises(Mismatch, match="trained for the target with fingerprint"):
        generate(settings.change(**{family: name}, max_new_tokens=4))


# writing


def test_a_layer_is_let_go_before_the_next_is_made(source, tmp_path, monkeypatch):
    seen: list[weakref.ref] = []
    build = Tensors.layer

    def layer(self, weights, index):
        assert not any(ref() is not None for ref in seen), "the layer before is still held"
        made = build(self, weights, index)
        seen[:] = [weakref.ref(tensor) for tensor in made.values()]
        return made

    monkeypatch.setattr(Tensors, "layer", layer)
    small = Shape(hidden=320, head_size=32, heads=10, kv_heads=5, inner=864, layers=8)
    inflate(source, small, tmp_path / "same")
    assert len(seen) == 9


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing(source, tmp_path, monkeypatch, problem):
    written = []

    def save(tensors, path, **kwargs):
        if written:
            raise problem
        written.append(path)
        path.write_bytes(b"half")

    monkeypatch.setattr(safetensors.torch, "save_file", save)
    expected = KeyboardInterrupt if isinstance(problem, KeyboardInterrupt) else BadInput
    with pytest.raises(expected) as caught:
        inflate(source, GROWN, tmp_path / "cut")
    assert written[0].parent.name == "cut.partial"
    assert not list(tmp_path.iterdir())
    if expected is BadInput:
        assert "free some space" in str(caught.value)


def test_what_a_killed_run_leaves_is_refused(checkpoint, tmp_path):
    """Before the end there is no config.json; nor does a damaged copy load."""
    small = read_source(str(checkpoint("llama")))
    inflate(small, TINY, tmp_path / "made")
    partial = tmp_path / "cut.partial"
    partial.mkdir()
    shutil.copy(tmp_path / "made" / "model-00001-of-00006.safetensors", partial)
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load(str(partial))
    with pytest.raises(BadInput, match="half-written"):
        inflate(small, TINY, tmp_path / "cut")
    shard = tmp_path / "made" / "model-00003-of-00006.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="damaged or half-written"):
        load(str(tmp_path / "made"))
    shard.unlink()
    with pytest.raises(ModelError, match=r"model-00003-of-00006\.safetensors is missing"):
        load(str(tmp_path / "made"))


def test_a_folder_that_is_taken_is_refused(source, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        inflate(source, GROWN, taken)
    with pytest.raises(BadInput, match="is a file"):
        inflate(source, GROWN, taken / "notes.txt")
    with pytest.raises(BadInput, match="cannot be written"):
        inflate(source, GROWN, taken / "notes.txt" / "below")
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


def test_a_disk_that_is_too_small_is_told_first(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 10**9))
    with pytest.raises(BadInput, match=r"take 14\.03 GB and 1\.00 GB are free"):
        inflate(source, SIZES["7B"], tmp_path / "large", dtype="bfloat16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": 300}, "--hidden 300: the source has 320"),
        ({"head_size": 48}, "--head-size 48: .* multiple"),
        ({"head_size": 0}, "--head-size 0"),
        ({"kv_heads": 4, "heads": 16}, "--kv-heads 4: the source has 5"),
        ({"kv_heads": 7}, "--heads 18: must be a multiple of kv_heads=7"),
        ({"kv_heads": 18}, "--heads 18: 2 query heads .* name 36 or more"),
        ({"heads": 0}, "--heads 0"),
        ({"hidden": 730}, "--hidden 730: must be a multiple of heads=18"),
        ({"inner": 800}, "--inner 800: the source has 864"),
        ({"layers": 7}, "--layers 7: the source has 8"),
    ],
)
def test_a_shape_that_cannot_hold_the_source_is_refused(source, tmp_path, changes, words):
    with pytest.raises(BadInput, match=words):
        inflate(source, GROWN._replace(**changes), tmp_path / "no")


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("gemma", {}, "is a 'gemma' model"),
        ("gpt2", {}, "is a 'gpt2' model"),
        ("llama", {"attention_bias": True}, "tensors beyond those of a plain layer"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}},
            "rotary angles of the kind 'dynamic'",
        ),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
            "sliding window",
        ),
    ],
)
def test_a_source_of_another_kind_is_refused(checkpoint, family, changes, words):
    with pytest.raises(BadInput, match=words):
        read_source(str(checkpoint(family, **changes)))


# the command


def test_the_command_writes_checks_and_warns(run, tmp_path, checkpoint):
    shape = [f"--{name.replace('_', '-')}={value}" for name, value in TINY._asdict().items()]
    words = ("--source", str(checkpoint("qwen3")), "--out", str(tmp_path / "made"), "--check")
    code, out, err = run("zoo", "inflate", *shape, *words, "--json")
    said = json.loads(out)
    assert code == 0, err
    assert said["passed"] and said["largest_difference"] < 1e-4
    assert said["shape"] == TINY._asdict() and said["inert_layers"] == [3]
    assert "note: Layers 3 to 3 add exactly nothing" in err and "--layers 3" in err
    code, out, err = run("zoo", "inflate", *shape, *words)
    assert code == 2 and "is not empty" in err
    loaded = load(str(tmp_path / "made"))
    assert loaded.parameters == said["parameters"]


def test_without_a_size_or_for_a_failed_check_the_exit_code_says_so(
    run, tmp_path, checkpoint, monkeypatch
):
    code, _, err = run("zoo", "inflate")
    assert code == 2 and "109M" in err
    code, _, err = run("zoo", "inflate", "--size", "2B")
    assert code == 2 and "2B" in err
    failed = {"largest_difference": 0.5, "same_argmax_ratio": 0.9, "passed": False}
    monkeypatch.setattr(inflate_command, "check", lambda *args: failed)
    words = ("--hidden", "128", "--source", str(checkpoint("llama")), "--check")
    code, out, err = run("zoo", "inflate", *words, "--out", str(tmp_path / "bad"))
    assert code == 1 and "largest difference: 0.5" in out
    assert "add exactly nothing" not in err, "only the width grew"
