"""The compiled pass gives torch's numbers, and notices whatever changes under it."""

from __future__ import annotations

import copy

import pytest
import torch
from plain import some_tokens
from torch.nn import functional as F

from workbench.core.span import Span
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.models.native import build, packed, walk
from workbench.models.native.packed import Packed

# Without a compiler there is no compiled pass; torch's, which then runs, is tested everywhere else.
# Where there is one, a kernel that it cannot compile is a failure and no reason to skip.
pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no C++ compiler here, so passes run on torch alone"
)

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe")
TREE = (-1, 0, 0, 1, 2, 2, 3)


def without(model):
    """The same weights, run by torch alone."""
    other = copy.copy(model)
    other.__dict__["native"] = None
    return other


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_pass_gives_torchs_numbers(family, loaded):
    model = loaded(family)
    ours, theirs = model.session(), without(model).session()
    taps = ("0", "1", "final", str(model.layer_count))
    for rows, parent in (
        (some_tokens(37), None),
        (some_tokens(7, 4), TREE),
        (some_tokens(1, 5), None),
        (some_tokens(2, 6), None),
        (some_tokens(23, 7), (-1, *(0,) * 22)),
    ):
        a = ours.forward(rows, parent, capture=taps)
        b = theirs.forward(rows, parent, capture=taps)
        assert worst(a.logits, b.logits) < 1e-5
        assert all(worst(a.hidden[tap], b.hidden[tap]) < 1e-5 for tap in taps)
        kept = range(len(rows)) if parent is None else [0]
        ours.commit(kept)
        theirs.commit(kept)
    assert model.walker(1) is model.native, model.native.reason


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_spans_and_ascents(family, loaded):
    model = loaded(family)
    count = model.layer_count
    ours, theirs = model.session(), without(model).session()
    spans = (
        Span.first(1),
        Span.of([count - 1]),
        Span.without(count, attention=[0]),
        Span.without(count, mlp=[0]),
        Span.without(count, attention=[0], mlp=[0]),
        Span.of([]),
    )
    for session in (ours, theirs):
        session.sync(some_tokens(11))
    for span in spans:
        got = [s.forward(some_tokens(5, 9), span=span, capture=("1",)) for s in (ours, theirs)]
        assert worst(got[0].logits, got[1].logits) < 1e-5
        assert worst(got[0].hidden["1"], got[1].hidden["1"]) < 1e-5
    rows = some_tokens(4, 2)
    assert worst(ours.ascend(rows, 1), theirs.ascend(rows, 1)) < 1e-5
    assert worst(ours.forward(rows).logits, theirs.forward(rows).logits) < 1e-5


def test_the_taps_are_not_the_stream_itself(loaded):
    session = loaded("llama").session()
    got = session.forward(some_tokens(3), capture=("0", "1"))
    assert not torch.equal(got.hidden["0"], got.hidden["1"])


def test_growing_and_compacting_keep_the_addresses_right(loaded):
    model = loaded("llama")
    ours, theirs = model.session(), without(model).session()
    for session in (ours, theirs):
        session._cache.capacity, session._cache.layers[0].capacity = 8, 8
    for seed in range(6):
        rows = some_tokens(7, seed)
        a, b = ours.forward(rows, TREE), theirs.forward(rows, TREE)
        assert worst(a.logits, b.logits) < 1e-5
        ours.commit([0, 2, 5])
        theirs.commit([0, 2, 5])


def test_a_changed_weight_is_noticed_at_once_and_packed_when_settled(loaded):
    model = loaded("llama").clone()
    session = model.session()
    session.forward([5])
    assert model.native.ready(1)
    with torch.inference_mode():
        model.anatomy.layers[0].mlp.down_proj.weight[0, 0] += 1
    for _ in range(8):  # torch's pass first, then the new packing: one and the same model
        got, wanted = session.forward([5]), without(model).session().forward([5])
        assert worst(got.logits, wanted.logits) < 1e-5
    assert model.native.ready(1)


def test_a_change_behind_the_version_counter_is_noticed_by_the_next_session(loaded):
    model = loaded("llama").clone()
    model.session().forward([5])
    weight = model.anatomy.layers[1].self_attn.v_proj.weight
    before = weight._version
    weight.data += 0.5
    norm = model.anatomy.layers[0].input_layernorm.weight
    norm.data = norm.data * 2  # other memory, too
    assert weight._version == before
    got, wanted = model.session().forward([5]), without(model).session().forward([5])
    assert worst(got.logits, wanted.logits) < 1e-5


def test_hooks_and_replaced_modules_are_torchs(loaded):
    model = loaded("llama").clone()
    session = model.session()
    plain = session.forward([5]).logits
    layer = model.anatomy.layers[0]
    handle = layer.mlp.register_forward_hook(lambda module, args, output: output * 2)
    assert not torch.equal(session.forward([5]).logits, plain)
    handle.remove()
    assert torch.equal(session.forward([5]).logits, plain)
    kept = layer.mlp.up_proj
    layer.mlp.up_proj = torch.nn.Sequential(kept, torch.nn.Tanh())
    assert not torch.equal(session.forward([5]).logits, plain)
    layer.mlp.up_proj = kept
    for _ in range(8):
        again = session.forward([5]).logits
    assert torch.equal(again, plain)


def test_what_transformers_leaves_behind_is_no_reason_to_stay_slow(loaded):
    model = loaded("llama").clone()
    session = model.session()
    plain = session.forward([5]).logits
    model.network(torch.tensor([[5]]), output_hidden_states=True)
    for _ in range(8):
        again = session.forward([5]).logits
    assert model.native.ready(1)
    assert torch.equal(again, plain)


def test_weights_are_narrow_only_where_nothing_is_lost(loaded):
    model = loaded("llama").clone()
    with torch.inference_mode():
        for weight in model.network.parameters():
            weight.copy_(weight.bfloat16().float())
    narrow = Packed(model.anatomy)
    assert narrow.layers[0].down.narrow == narrow.head.narrow == 1
    with torch.inference_mode():
        model.anatomy.layers[0].mlp.down_proj.weight[3, 3] += 2**-12
    wide = Packed(model.anatomy)
    assert wide.layers[0].down.narrow == 0
    assert wide.layers[0].out.narrow == 1
    assert wide.bytes > narrow.bytes


@pytest.mark.parametrize("outputs, inputs", [(16, 32), (1, 1), (37, 19), (300, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_of_any_shape(outputs, inputs, bias):
    linear = torch.nn.Linear(inputs, outputs, bias=bias)
    holder = Packed.__new__(Packed)
    holder._library, holder._kept, holder.bytes = build.kernel(), [], 0
    matrix = holder._matrix([linear])
    for rows in (1, 2, 3, 6, 7, 13, 64):
        x, out = torch.randn(rows, inputs), torch.empty(rows, outputs)
        build.kernel().wb_multiply(packed.address(matrix), x.data_ptr(), rows, 1, out.data_ptr())
        torch.testing.assert_close(
            out, F.linear(x, linear.weight, linear.bias), atol=1e-5, rtol=1e-5
        )


def test_greedy_text_of_the_embedded_target_is_torchs():
    model = load("zoo:target")
    prompts = ("def read(path):\n", "class Queue:\n    ", "import os\n\n\nclass ")
    for prompt in prompts:
        for drafter in ("none", "token_recycling"):
            settings = RunSettings(model, prompt, drafter, max_new_tokens=64, record_top=0)
            ours = generate(settings)
            theirs = generate(settings.change(model=without(model)))
            assert ours.text == theirs.text
    assert model.native.bytes < model.parameters * 2.2, "the embedded weights are stored in 16 bits"


def test_switched_off_or_without_a_compiler_it_says_why(monkeypatch, loaded):
    build.attempt.cache_clear()
    try:
        monkeypatch.setenv(build.SWITCH, "0")
        model = loaded("llama").clone()
        assert model.walker(1) is model.fused
        assert "switched off" in model.native.reason
        build.attempt.cache_clear()
        monkeypatch.delenv(build.SWITCH)
        monkeypatch.setenv("PATH", "")
        assert "no C++ compiler" in _why(loaded("llama").clone())
    finally:
        build.attempt.cache_clear()


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path, loaded):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build.shutil, "which", lambda name: str(broken))
    build.attempt.cache_clear()
    try:
        assert "no such target" in _why(loaded("llama").clone())
        assert not list((tmp_path / "draft-workbench").glob("*.so"))
    finally:
        build.attempt.cache_clear()


def test_a_kernel_that_does_not_load_leaves_everything_to_torch(monkeypatch, loaded):
    def refuse(path):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(build.ctypes, "CDLL", refuse)
    build.attempt.cache_clear()
    try:
        model = loaded("llama").clone()
        assert "libgomp" in _why(model)
        assert model.session().forward([5]).logits.isfinite().all()
    finally:
        build.attempt.cache_clear()


def test_a_refusal_is_found_out_once(monkeypatch, loaded):
    asked = []
    monkeypatch.setattr(build.shutil, "which", lambda name: asked.append(name))
    build.attempt.cache_clear()
    try:
        session = loaded("llama").clone().session()
        for _ in range(200):
            session.forward([5])
            session.crop(0)
        assert asked == list(build._COMPILERS)
    finally:
        build.attempt.cache_clear()


def test_a_copy_that_does_not_fit_the_memory_is_not_made(monkeypatch, loaded):
    monkeypatch.setattr(packed.os, "sysconf", lambda name: 100)
    assert "does not fit half" in _why(loaded("llama").clone())


def test_half_precision_and_other_activations_stay_with_torch(checkpoint, loaded):
    half = load(str(checkpoint("llama")), dtype="bfloat16")
    assert half.native is None
    gelu = loaded("llama", hidden_act="gelu").clone()
    assert "SiLU" in _why(gelu)


def _why(model) -> str:
    model.walker(1)
    return model.native.reason


def test_many_rows_are_torchs(loaded):
    model = loaded("llama")
    assert not model.native.ready(walk.MOST_ROWS + 1)
