"""The session's promise: whatever was done to it, it equals a fresh prefill of its tokens."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import check_next, deviation, path_to, some_tokens, transformers_text, tree_logits

from workbench.core.errors import BadInput, ModelError
from workbench.core.span import Span
from workbench.models.session import Session

QUIET = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
MODES = [("llama", "fused"), ("llama", "walk"), ("llama", "stock"), ("gpt2", "walk")]
TOKENS = st.integers(0, 255)


@st.composite
def trees(draw, most: int = 9):
    """Rows and parents in any topological order."""
    n = draw(st.integers(1, most))
    parent = tuple(-1 if row == 0 else draw(st.integers(0, row - 1)) for row in range(n))
    return draw(st.lists(TOKENS, min_size=n, max_size=n)), parent


@st.composite
def operations(draw):
    """One thing that a drafter or the engine does to a session."""
    kind = draw(st.sampled_from(["sync", "edit", "tree", "chain", "crop", "scratch", "drop"]))
    rows, parent = draw(trees())
    return kind, rows, parent, draw(st.integers(0, 40)), draw(st.integers(0, 8))


def in_mode(model, mode: str):
    other = copy.copy(model)
    other.mode = mode
    return other


def apply(session: Session, operation) -> None:
    kind, rows, parent, number, pick = operation
    if len(session) > 150 and kind not in ("crop", "edit"):
        session.crop(5)
    if kind == "sync":
        session.sync([*session.tokens, *rows])
    elif kind == "edit":  # another text with a common beginning
        session.sync([*session.tokens[:number], *rows])
    elif kind in ("tree", "scratch"):
        with session.scratch() if kind == "scratch" else nullcontext():
            session.forward(rows, parent)
            session.commit(path_to(pick % len(rows), parent))
    elif kind == "chain":
        session.forward(rows)
        session.commit(range(pick % len(rows)))
    elif kind == "crop":
        session.crop(number)
    else:
        session.forward(rows, parent)  # scored and never committed


def expected(tokens: list[int], operation) -> list[int]:
    """What the stored tokens must be afterwards, by the obvious list arithmetic."""
    kind, rows, parent, number, pick = operation
    if len(tokens) > 150 and kind not in ("crop", "edit"):
        tokens = tokens[:5]
    if kind == "sync":
        return [*tokens, *rows]
    if kind == "edit":
        return [*tokens[:number], *rows]
    if kind == "tree":
        return [*tokens, *(rows[row] for row in path_to(pick % len(rows), parent))]
    if kind == "chain":
        return [*tokens, *rows[: pick % len(rows)]]
    return tokens[:number] if kind == "crop" else tokens


@pytest.mark.parametrize(("family", "mode"), MODES)
def test_any_sequence_of_operations_equals_a_fresh_prefill(loaded, family, mode):
    model = in_mode(loaded(family), mode)

    @QUIET
    @given(st.lists(operations(), min_size=1, max_size=8), TOKENS)
    def holds(todo, token):
        session, tokens = Session(model, capacity=4), []
        for operation in todo:
            apply(session, operation)
            tokens = expected(tokens, operation)
            assert session.tokens == tokens
        check_next(session, token)
        assert session.tokens == tokens

    holds()


@pytest.mark.parametrize(("family", "mode"), MODES)
def test_any_tree_equals_plain_forwards(loaded, family, mode):
    model = in_mode(loaded(family), mode)

    @QUIET
    @given(trees(), st.integers(0, 12))
    def holds(tree, past):
        rows, parent = tree
        session, prefix = model.session(), some_tokens(past)
        session.sync(prefix)
        got = session.forward(rows, parent).logits
        assert deviation(got, tree_logits(model, prefix, rows, parent)) <= 1e-5

    holds()


@pytest.mark.parametrize("mode", ["fused", "walk", "stock"])
def test_the_order_of_nodes_does_not_matter(loaded, mode):
    """The same tree, its nodes renumbered: each node keeps its logits, each path its future."""
    session = in_mode(loaded("llama"), mode).session()
    session.sync(some_tokens(9))
    tokens, parent = [1, 2, 3, 4, 5], (-1, 0, 0, 2, 1)
    order = [0, 2, 3, 1, 4]  # new row -> old row
    place = {old: new for new, old in enumerate(order)}
    first = session.forward(tokens, parent).logits
    moved = session.forward(
        [tokens[old] for old in order],
        tuple(place[parent[old]] if parent[old] >= 0 else -1 for old in order),
    ).logits
    assert deviation(moved, first[order]) <= 1e-5
    session.commit([0, place[2], place[3]])
    assert session.tokens[-3:] == [1, 3, 4]
    check_next(session, 7)


def test_rows_far_apart_and_the_whole_doubling(loaded):
    session = Session(loaded("llama"), capacity=1)
    for step in range(30):
        session.forward([step, 50, 60, 70 + step], (-1, 0, 0, 2))
        session.commit([0, 2, 3])
    assert len(session) == 90
    assert session._cache.capacity == 128
    check_next(session, 3)


def test_compaction_gathers_rows_in_the_order_asked_for(loaded):
    session = loaded("llama").session()
    session.sync([1, 2, 3])
    session.forward([4, 5, 6, 7])
    layer = session._cache.layers[1]
    wanted = layer.key_store[:, :, [6, 4, 5]].clone()
    session._cache.keep(3, [3, 1, 2])
    assert torch.equal(layer.keys[:, :, 3:], wanted)
    assert layer.get_seq_length() == 6


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_sync_in_pieces_is_one_sync(loaded, family):
    whole, pieces = loaded(family).session(), loaded(family).session()
    text = some_tokens(50)
    a = whole.sync(text).logits
    b = pieces.sync(text, chunk_tokens=7).logits
    assert a.shape == b.shape
    assert deviation(b, a) <= 1e-5
    assert pieces.tokens == text
    assert pieces.sync(text) is None


def test_nothing_to_score(loaded):
    session = loaded("llama").session()
    session.sync([1, 2])
    with pytest.raises(BadInput, match="tokens is empty"):
        session.forward([])
    check_next(session, 3)


@pytest.mark.parametrize("parent", [(0, 0), (-1, 1), (-1, -1), (-1, 2, 0), (-1, 0, -2)])
def test_a_parent_that_is_none(loaded, parent):
    session = loaded("llama").session()
    session.sync([1, 2])
    with pytest.raises(BadInput, match=r"forward: "):
        session.forward([5] * len(parent), parent)
    check_next(session, 3)


@pytest.mark.parametrize("rows", [[2], [0, 1, 2], [-1]])
def test_rows_that_were_not_scored_cannot_be_kept(loaded, rows):
    session = loaded("llama").session()
    session.sync([1, 2])
    session.forward([5, 6])
    with pytest.raises(BadInput, match="not among the 2 rows"):
        session.commit(rows)
    session.commit([0, 1])
    with pytest.raises(BadInput, match="not among the 0 rows"):
        session.commit([0])  # twice
    assert session.tokens == [1, 2, 5, 6]
    check_next(session, 3)


def test_a_full_context_is_said_and_survived(loaded):
    model = loaded("llama")
    session = model.session()
    session.sync(some_tokens(model.context_tokens - 3))
    with pytest.raises(BadInput, match=r"253 stored \+ 4 new tokens exceed the 256") as raised:
        session.forward([1, 2, 3, 4])
    assert "ask for fewer" in str(raised.value)
    check_next(session, 3)
    session.forward([1, 2, 3])
    session.commit([0, 1, 2])
    assert len(session) == model.context_tokens
    with pytest.raises(BadInput, match="exceed"):
        session.forward([1])
    session.crop(10)
    check_next(session, 1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize(("family", "mode"), MODES)
def test_out_of_memory_in_the_middle_of_a_pass(loaded, family, mode, error):
    model = in_mode(loaded(family), mode)
    session = model.session()
    session.sync(some_tokens(10))

    def full(module, args):
        raise error("no more")

    handle = model.anatomy.layers[1].mlp.register_forward_pre_hook(full)
    try:
        with pytest.raises(ModelError, match="out of memory at 14 tokens") as raised:
            session.forward([1, 2, 3, 4], (-1, 0, 0, 1))
    finally:
        handle.remove()
    assert "smaller draft tree" in str(raised.value)
    assert len(session) == 10
    check_next(session, 3)


@pytest.mark.parametrize("failing", range(6))
def test_out_of_memory_while_the_cache_grows(loaded, monkeypatch, failing):
    session = Session(loaded("llama"), capacity=8)
    session.sync(some_tokens(7))
    real, calls = torch.Tensor.new_zeros, []

    def full(self, *shape, **options):
        calls.append(shape)
        if len(calls) == failing + 1:
            raise torch.OutOfMemoryError("no more")
        return real(self, *shape, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_zeros", full)
        with pytest.raises(ModelError, match="out of memory"):
            session.forward([1, 2, 3])
    assert session.tokens == some_tokens(7)
    session.sync(some_tokens(30))  # now there is room
    check_next(session, 3)


def test_scratch_forgets_even_after_an_error(loaded):
    session = loaded("llama").session()
    session.sync([1, 2, 3])
    with pytest.raises(ZeroDivisionError), session.scratch():
        session.forward([4])
        session.commit([0])
        raise ZeroDivisionError
    assert session.tokens == [1, 2, 3]
    check_next(session, 3)


def test_two_sessions_share_weights_and_nothing_else(loaded):
    model = loaded("llama")
    a, b = model.session(), model.session()
    a.sync([1, 2, 3])
    b.sync([9, 8])
    a.forward([4])
    b.forward([7])
    a.commit([0])
    assert (a.tokens, b.tokens) == ([1, 2, 3, 4], [9, 8])
    check_next(a, 5)
    check_next(b, 5)


@pytest.mark.parametrize("family", ["llama", "olmo2", "gpt2", "opt", "gpt_neox", "gemma2"])
def test_captured_states_are_the_models_own(loaded, family):
    model = loaded(family)
    text = some_tokens(12)
    got = model.session().sync(text, capture=("0", "2", "final"))
    with torch.inference_mode():
        out = model.network(torch.tensor([text]), output_hidden_states=True, use_cache=False)
    for name, index in (("0", 0), ("2", 2), ("final", -1)):
        assert deviation(got.hidden[name], out.hidden_states[index][0]) <= 1e-5, name


def test_a_span_leaves_layers_out(loaded):
    model = loaded("llama")
    every = model.session().forward([1, 2, 3], span=Span.first(3)).logits
    assert deviation(every, model.session().forward([1, 2, 3]).logits) <= 1e-6
    skipped = in_mode(model, "walk").session().forward([1, 2, 3], span=Span.of({0, 2})).logits
    fused = model.session().forward([1, 2, 3], span=Span.of({0, 2})).logits
    assert deviation(fused, skipped) <= 1e-5
    assert deviation(fused, every) > 1e-2
    with pytest.raises(ModelError, match="layers cannot be skipped.*anatomy"):
        loaded("gptj").session().forward([1], span=Span.first(1))


def test_adapters_and_hooks_act_in_every_pass(loaded):
    """A hook on a projection and on an MLP changes the three passes alike."""
    model = loaded("llama")
    layer = model.anatomy.layers[1]
    handles = [
        layer.self_attn.q_proj.register_forward_hook(lambda m, a, out: out * 1.5),
        layer.mlp.register_forward_hook(lambda m, a, out: out - 0.1),
    ]
    try:
        found = [in_mode(model, m).session().forward([1, 2, 3]).logits for m in ("fused", "stock")]
    finally:
        for handle in handles:
            handle.remove()
    assert deviation(found[0], found[1]) <= 1e-5
    assert deviation(found[0], model.session().forward([1, 2, 3]).logits) > 1e-2


def test_plain_decoding_equals_generate_to_the_end_of_the_context(loaded):
    model = loaded("llama")
    prompt = some_tokens(250)
    session, text = model.session(), list(prompt)
    for _ in range(6):
        text.append(int(session.sync(text).logits[-1].argmax()))
    assert text[250:] == transformers_text(model, prompt, 6)
