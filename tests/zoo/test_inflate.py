"""An inflated checkpoint says what its source says, and a broken rule of inflation shows."""

from __future__ import annotations

import copy
import dataclasses
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
from workbench.testing.checkpoints import tiny_network
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
from workbench.zoo.widening import WAYS, Shape, Tensors, Widening, shares

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


def grown_in_memory(network, widening: Widening, **config):
    """A network with the tensors of ``widening``, which may be a wrong one."""
    holder = type("Holder", (), {"network": network})
    settings = config_of(holder, widening, torch.float32)
    for name, value in config.items():
        setattr(settings, name, value)
    large = AutoModelForCausalLM.from_config(settings).eval()
    weights = {name: tensor.float() for name, tensor in network.state_dict().items()}
    state: dict = {}
    for part in Tensors(widening, 0, torch.float32).parts(weights):
        state |= part
    missing, unknown = large.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unknown
    large.tie_weights()
    return large


@torch.inference_mode()
def difference(network, large) -> float:
    ids = torch.randint(0, 256, (2, 60), generator=torch.Generator().manual_seed(1))
    return float((network(ids).logits - large(ids).logits).abs().max())


def tiny(family: str, eps: float = 1e-2, **changes):
    """A random network whose norms' gains and eps matter."""
    return tiny_network(family, rms_norm_eps=eps, **changes)


def tiny_widening(network, way: str = "duplicate") -> Widening:
    return widening_of(type("Holder", (), {"network": network}), TINY, way)


# the same function


def test_logits_are_the_sources(source, made):
    found = compare(source, made)
    assert found.largest_difference < 1e-4
    assert found.same_argmax_ratio == 1
    assert made.mode == source.mode == "fused" and not made.reason
    assert made.compiled == source.compiled


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
    tensors = Tensors(widening_of(source, GROWN), 0, torch.float32)
    for part in tensors.parts(dict(source.network.state_dict())):
        wanted |= part
    state = fresh.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in state)
    ids = torch.arange(3, 40)[None]
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(fresh(ids).logits, again(ids).logits)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_both_families_both_ways(family, way, tied, eps):
    network = tiny(family, eps, tie_word_embeddings=tied)
    widening = tiny_widening(network, way)
    assert widening.tied == (tied and way == "zeros")
    large = grown_in_memory(network, widening)
    assert difference(network, large) < 1e-4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_rotary_tables_that_only_rescale_frequencies_keep(rope):
    network = tiny("llama", rope_parameters={"rope_theta": 500.0, **rope})
    assert difference(network, grown_in_memory(network, tiny_widening(network))) < 1e-4


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


def test_inert_weights_depend_on_the_seed_and_the_function_does_not():
    network = tiny("llama")
    widening = tiny_widening(network)
    weights = dict(network.state_dict())
    one, same, other = (
        Tensors(widening, seed, torch.float32).layer(weights, 3) for seed in (1, 1, 2)
    )
    name = "model.layers.3.mlp.up_proj.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])
    narrow = one[name].bfloat16().float()
    assert torch.equal(one[name], narrow), "kept in 16 bits by the compiled pass"


@pytest.mark.parametrize("copies", range(1, 40))
def test_shares_are_powers_of_two_that_sum_to_one(copies):
    found = shares(copies)
    assert len(found) == copies and sum(found) == 1
    assert all(torch.frexp(torch.tensor(share))[0] == 0.5 for share in found)


# each rule is needed


def swapped(values: tuple[int, ...]) -> tuple[int, ...]:
    return (values[1], values[0], *values[2:])


BROKEN = {
    "eps": lambda w: {"eps": w.eps / w.gain**2},
    "gain": lambda w: {"gain": 1.0},
    "shares": lambda w: {"shares": (0.5,) * w.copies},
    "head order": lambda w: {"heads": tuple(range(w.small.heads))},
    "heads swapped between groups": lambda w: {
        "heads": (w.heads[2], *w.heads[1:2], *w.heads[:1], w.heads[3])
    },
    "rotary map": lambda w: {"dims": tuple(range(w.small.head_size))},
    "halves of a head": lambda w: {"dims": swapped(w.dims)},
    "attention scale": lambda w: {"query": 1.0},
    "key gain": lambda w: {"key_gain": 1.0},
    "key factor": lambda w: {"key": 1.0},
}
ONLY_WITH_HEAD_NORMS = {"key gain", "key factor"}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_shows(rule, family):
    if rule in ONLY_WITH_HEAD_NORMS and family == "llama":
        family = "qwen3"  # without head norms there is no such factor
    network = tiny(family)
    widening = tiny_widening(network)
    wrong = dataclasses.replace(widening, **BROKEN[rule](widening))
    assert wrong != widening
    assert difference(network, grown_in_memory(network, wrong)) > 1e-3


def test_a_head_tied_to_the_copies_shows():
    network = tiny("llama", tie_word_embeddings=True)
    widening = tiny_widening(network)
    assert not widening.tied
    large = grown_in_memory(network, widening)
    assert difference(network, large) < 1e-4
    large.lm_head.weight = large.model.embed_tokens.weight
    assert difference(network, large) > 1


def test_inert_heads_that_write_show():
    network = tiny("llama")
    large = grown_in_memory(network, tiny_widening(network))
    with torch.no_grad():
        large.model.layers[0].self_attn.o_proj.weight[:, -1] = 0.02
    assert difference(network, large) > 1e-3


def test_the_trained_target_shows_a_small_error_too(source):
    """The real eps is 1e-5: that it is not scaled must not hide in the tolerance."""
    small = copy.deepcopy(source.network)
    shape = Shape(hidden=360, head_size=32, heads=10, kv_heads=5, inner=864, layers=8)
    widening = widening_of(source, shape)
    right = grown_in_memory(small, widening)
    assert difference(small, right) < 1e-4
    right.model.layers[0].input_layernorm.variance_epsilon = source.network.config.rms_norm_eps * 2
    assert difference(small, right) > 1e-4


# sizes


@pytest.mark.parametrize(
    ("size", "millions"), [("109M", 109), ("290M", 290), ("1B", 981), ("3B", 2830), ("7B", 7000)]
)
def test_a_size_has_the_parameters_that_it_names(size, millions, source):
    shape = SIZES[size]
    tied = shape.parameters(4096, tied=True)
    assert abs(tied / 1e6 / millions - 1) < 0.01
    widening = widening_of(source, shape)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config_of(source, widening, torch.bfloat16))
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


def test_qwen3_counts_the_norms_of_heads():
    network = tiny("qwen3")
    large = grown_in_memory(network, tiny_widening(network))
    count = sum(weight.numel() for weight in large.parameters())
    assert count == TINY.parameters(260, tied=False, head_norms=True)


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


def test_only_one_part_is_held_at_a_time(source, tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    whole = safetensors.torch.save_file

    def save(tensors, *args, **kwargs):
        assert not any(ref() is not None for ref in alive), "an earlier layer is still held"
        alive[:] = [weakref.ref(tensor) for tensor in tensors.values()]
        whole(tensors, *args, **kwargs)

    monkeypatch.setattr(safetensors.torch, "save_file", save)
    small = Shape(hidden=320, head_size=32, heads=10, kv_heads=5, inner=864, layers=8)
    inflate(source, small, tmp_path / "same")
    assert alive


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
