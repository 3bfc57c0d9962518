"""Passes in parts: trees grown level by level, chains that wait half-way up the layers."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import check_next, deviation, path_to, plain_logits, some_tokens, tree_logits

from workbench.core.errors import BadInput, ModelError
from workbench.core.span import Span

QUIET = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
GROWING = [("llama", "fused"), ("llama", "walk"), ("llama", "stock"), ("gpt2", "walk")]
WALKED = [("llama", "fused"), ("llama", "walk"), ("gpt2", "walk"), ("opt", "walk")]
TOKENS = st.integers(0, 255)


def in_mode(model, mode: str):
    other = copy.copy(model)
    other.mode = mode
    return other


@st.composite
def pieces(draw):
    """A tree in topological order, and where it is cut into forwards."""
    n = draw(st.integers(2, 10))
    parent = tuple(-1 if row == 0 else draw(st.integers(0, row - 1)) for row in range(n))
    rows = draw(st.lists(TOKENS, min_size=n, max_size=n))
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=3)))
    return rows, parent, [0, *cuts, n]


@pytest.mark.parametrize(("family", "mode"), GROWING)
def test_a_tree_in_pieces_is_the_tree_at_once(loaded, family, mode):
    model = in_mode(loaded(family), mode)

    @QUIET
    @given(pieces(), st.integers(0, 10), st.integers(0, 9))
    def holds(tree, past, pick):
        rows, parent, cuts = tree
        session, prefix = model.session(), some_tokens(past)
        session.sync(prefix)
        parts = [
            session.forward(rows[a:b], parent[a:b], grow=a > 0).logits
            for a, b in itertools.pairwise(cuts)
        ]
        wanted = tree_logits(model, prefix, rows, parent)
        assert deviation(torch.cat(parts), wanted) <= 1e-5
        path = path_to(pick % len(rows), parent)
        session.commit(path)
        assert session.tokens == [*prefix, *(rows[row] for row in path)]
        check_next(session, 7)

    holds()


def test_growing_from_nothing_is_a_forward(loaded):
    session = loaded("llama").session()
    session.sync([1, 2, 3])
    first = session.forward([4, 5], grow=True).logits
    session.commit([0, 1])
    after = session.forward([6], grow=True).logits  # committed rows are no longer grown upon
    assert deviation(first[-1], plain_logits(session.model, [1, 2, 3, 4, 5])) <= 1e-5
    assert deviation(after[-1], plain_logits(session.model, [1, 2, 3, 4, 5, 6])) <= 1e-5


def test_a_tree_that_outgrows_the_context_is_refused_whole(loaded):
    session = loaded("llama").session()
    session.sync(some_tokens(250))
    session.forward([1, 2, 3], (-1, 0, 0))
    with pytest.raises(BadInput, match="250 stored . 8 new tokens exceed the 256"):
        session.forward([4] * 5, (1, 1, 2, 2, 2), grow=True)
    session.commit([0, 1])
    check_next(session, 5)


@pytest.mark.parametrize(("family", "mode"), WALKED)
def test_an_ascent_resumed_is_a_plain_forward(loaded, family, mode):
    """Rows climb in pieces, more may follow, and any beginning of them can be committed."""
    model = in_mode(loaded(family), mode)
    layers = model.layer_count

    @QUIET
    @given(
        st.lists(TOKENS, min_size=1, max_size=6),
        st.lists(TOKENS, max_size=3),
        st.integers(1, layers),
        st.integers(1, 6),
        st.integers(0, 8),
    )
    def holds(climbed, further, depth, cut, kept):
        session, prefix = model.session(), some_tokens(9)
        session.sync(prefix)
        streams = [session.ascend(climbed[:cut], depth)]
        if climbed[cut:]:
            streams.append(session.ascend(climbed[cut:], depth))
        with torch.inference_mode():
            ids = torch.tensor([[*prefix, *climbed]])
            seen = model.network(ids, output_hidden_states=True, use_cache=False).hidden_states
        if depth < layers:  # the last entry is normed already
            assert deviation(torch.cat(streams), seen[depth][0, len(prefix) :]) <= 1e-5
        assert session.tokens == prefix, "an ascent commits nothing"
        rows = [*climbed, *further]
        got = session.forward(rows)
        wanted = tree_logits(model, prefix, rows, tuple(range(-1, len(rows) - 1)))
        assert deviation(got.logits, wanted) <= 1e-5
        session.commit(range(kept % len(rows)))
        assert session.tokens == [*prefix, *rows[: kept % len(rows)]]
        check_next(session, 3)

    holds()


@pytest.mark.parametrize("mode", ["fused", "walk"])
def test_whatever_comes_between_an_ascent_is_forgotten(loaded, mode):
    """Another chain, a tree, a crop, another depth: never resumed from rows that do not match."""
    model = in_mode(loaded("llama"), mode)
    prefix = some_tokens(9)

    def fresh():
        session = model.session()
        session.sync(prefix)
        session.ascend([5, 6, 7], 2)
        return session

    session = fresh()
    got = session.forward([5, 9, 7]).logits  # another token in the middle
    assert deviation(got[-1], plain_logits(model, [*prefix, 5, 9, 7])) <= 1e-5
    session = fresh()
    got = session.forward([5, 6, 7], (-1, 0, 0)).logits  # the same tokens as a tree
    assert deviation(got, tree_logits(model, prefix, [5, 6, 7], (-1, 0, 0))) <= 1e-5
    session = fresh()
    session.crop(4)
    got = session.forward([5, 6]).logits
    assert deviation(got[-1], plain_logits(model, [*prefix[:4], 5, 6])) <= 1e-5
    session = fresh()
    session.ascend([5, 6], 3)
    got = session.forward([5, 6, 7]).logits
    assert deviation(got[-1], plain_logits(model, [*prefix, 5, 6, 7])) <= 1e-5
    session = fresh()
    got = session.forward([5]).logits  # fewer rows than climbed
    assert deviation(got[-1], plain_logits(model, [*prefix, 5])) <= 1e-5
    session.commit([0])
    check_next(session, 6)
    session = fresh()
    got = session.forward([5, 6, 7], capture=("1",))  # a state below the ascent
    assert got.hidden["1"].shape[0] == 3
    session = fresh()
    with pytest.raises(BadInput):
        session.forward([1] * 300)
    got = session.forward([5, 6, 7]).logits
    assert deviation(got[-1], plain_logits(model, [*prefix, 5, 6, 7])) <= 1e-5


def test_deep_layers_run_once_for_ascended_rows(loaded):
    """The saving is real: layers below the exit are not called again by the verifying pass."""
    model = in_mode(loaded("llama"), "walk")
    calls, handles = [], []
    for index, layer in enumerate(model.anatomy.layers):
        handles.append(layer.register_forward_pre_hook(lambda *_, i=index: calls.append(i)))
    try:
        session = model.session()
        session.sync([1, 2, 3])
        calls.clear()
        session.ascend([4], 2)
        session.ascend([5], 2)
        assert calls == [0, 1, 0, 1]
        calls.clear()
        session.forward([4, 5])
        assert calls == list(range(2, model.layer_count))
    finally:
        for handle in handles:
            handle.remove()


def test_families_that_cannot_be_cut_say_so(loaded):
    with pytest.raises(ModelError, match="layers cannot be skipped.*anatomy"):
        loaded("gptj").session().ascend([1], 1)
    with pytest.raises(ModelError, match="attention and MLP cannot be skipped apart"):
        loaded("gpt2").session().forward([1], span=Span.without(4, (1,), ()))
