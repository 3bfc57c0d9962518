"""The recorded pass, taken down by calling it again: everything of it but the CUDA graph itself."""

from __future__ import annotations

import copy

import pytest
import torch
from plain import (
    LEAF,
    PARENT,
    check_next,
    deviation,
    path_to,
    some_tokens,
    transformers_text,
    tree_logits,
)
from recorded import recorded, walked

from workbench.core.span import Span
from workbench.engine.run import RunSettings, generate
from workbench.models import graphs
from workbench.models.session import Session
from workbench.models.static_pass import ROWS, Bucket

# Grouped queries, norms of heads, biases; and as many key heads as query heads, or one.
MODELS = (
    ("llama", {}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("llama", {"num_key_value_heads": 4}),
    ("llama", {"num_key_value_heads": 1}),
)
EDGES = sorted({n for rows in ROWS for n in (rows, rows + 1) if n <= ROWS[-1]})


def any_tree(n: int, seed: int = 1) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(n, generator=generator).tolist()
    return tuple(-1 if row == 0 else int(draws[row] * row) for row in range(n))


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_tree_rows_equal_plain_forwards_at_every_edge(loaded, family, changes):
    model, counted = recorded(loaded(family, **changes))
    prefix = some_tokens(20)
    for n in EDGES if (family, changes) == MODELS[0] else (1, 3, 8, 40):
        session, rows, parent = model.session(), some_tokens(n, n), any_tree(n)
        session.sync(prefix)
        before = counted.replays
        got = session.forward(rows, parent).logits
        assert deviation(got, tree_logits(model, prefix, rows, parent)) <= 1e-5, f"{n} rows"
        assert counted.replays > before, model.graphs.refused or model.graphs.reason
        assert len(got) == n


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_commit_then_continue_equals_a_fresh_forward(loaded, family, changes):
    model, counted = recorded(loaded(family, **changes))
    session = model.session()
    session.sync(some_tokens(20))
    for seed in range(3):
        rows = some_tokens(len(PARENT), seed)
        got = session.forward(rows, PARENT).logits
        assert deviation(got, tree_logits(model, session.tokens, rows)) <= 1e-5
        session.commit(path_to(LEAF))
        check_next(session, 9)
        session.sync([*session.tokens, *some_tokens(3, seed)])  # a chain
    assert counted.made == 3, "eight rows, one, and four for the chain of three"


@pytest.mark.parametrize("past", [119, 120, 121, 127, 128, 129, 200])
def test_the_width_of_a_bucket_is_always_enough(loaded, past):
    model, _ = recorded(loaded("llama"))
    session, prefix, rows = model.session(), some_tokens(past), some_tokens(8, 5)
    session.sync(prefix)
    got = session.forward(rows, PARENT).logits
    assert deviation(got, tree_logits(model, prefix, rows)) <= 1e-5
    (bucket,) = session._cache.recorded.passes
    assert bucket == Bucket(8, 128 if past <= 120 else 256, ())


def test_a_bucket_is_never_wider_than_the_cache():
    assert Bucket.of(3, 500, 520, ()) == Bucket(4, 512, ())
    assert Bucket.of(5, 508, 520, ()) == Bucket(8, 520, ())
    assert Bucket.of(1, 0, 6, ()) == Bucket(1, 6, ())


def drafted(model, capacity: int, longer: int = 0) -> float:
    """The worst deviation of trees on a session; it gets room for ``longer`` tokens on the way."""
    session, worst = Session(model, capacity), 0.0
    session.sync(some_tokens(3))
    for seed in range(12):
        rows = some_tokens(8, seed)
        got = session.forward(rows, PARENT).logits
        worst = max(worst, deviation(got, tree_logits(model, session.tokens, rows)))
        session.commit(path_to(LEAF))
        if seed == 5:
            session._cache.reserve(longer)
    return worst


def test_recordings_are_dropped_when_the_cache_grows(loaded):
    model, counted = recorded(loaded("llama"))
    assert drafted(model, 4) <= 1e-5
    assert counted.made == 3, "each size of the cache has recordings of its own: 16, 32 and 64"
    model, counted = recorded(loaded("llama"))
    assert drafted(model, 128, 300) <= 1e-5
    assert counted.made == 2


def test_recordings_kept_over_a_growth_would_be_seen(loaded, monkeypatch):
    """The plain recording keeps to the stores it was made for, as a graph does."""
    monkeypatch.setattr(graphs._Kept, "hold", lambda self, cache: True)
    model, counted = recorded(loaded("llama"))
    assert drafted(model, 128, 300) > 1e-2
    assert counted.made == 1


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_taps_and_grown_trees_are_the_walks(loaded, family):
    model, counted = recorded(loaded(family))
    taps = ("0", "1", "final", str(model.layer_count))
    ours, theirs = model.session(), walked(model).session()
    for session in (ours, theirs):
        session.sync(some_tokens(9))
    for rows, parent, grow in (
        (some_tokens(3), (-1, 0, 0), False),
        (some_tokens(2, 4), (1, 2), True),
        (some_tokens(5, 5), (3, 3, 4, 0, 5), True),
    ):
        got, wanted = (s.forward(rows, parent, capture=taps, grow=grow) for s in (ours, theirs))
        assert deviation(got.logits, wanted.logits) <= 1e-5
        assert tuple(got.hidden) == taps
        assert all(deviation(got.hidden[tap], wanted.hidden[tap]) <= 1e-5 for tap in taps)
    assert counted.made == 3


def test_what_a_pass_gave_is_not_overwritten_by_the_next(loaded):
    model, _ = recorded(loaded("llama"))
    session = model.session()
    session.sync(some_tokens(9))
    for rows in ((1, 2), (3, 4)):
        session.forward(rows, capture=("1", "final"))  # recorded before anything is compared
    first = session.forward([5, 6], capture=("1", "final"))
    kept = copy.deepcopy((first.logits, first.hidden))
    session.forward([7, 8], capture=("1", "final"))
    assert torch.equal(first.logits, kept[0])
    assert all(torch.equal(first.hidden[tap], kept[1][tap]) for tap in ("1", "final"))


def test_the_walk_runs_what_no_recording_is_made_for(loaded):
    model, counted = recorded(loaded("llama"))
    ours, theirs = model.session(), walked(model).session()
    for session in (ours, theirs):
        session.sync(some_tokens(11))  # a prompt
    for call in (
        lambda s: s.forward([1, 2], span=Span.first(1)).logits,
        lambda s: s.ascend([1, 2], 1),
        lambda s: s.forward([1, 2, 3]).logits,  # resumed
        lambda s: s.forward(some_tokens(129)).logits,
    ):
        assert deviation(call(ours), call(theirs)) <= 1e-5
    assert counted.made == 0


@pytest.mark.parametrize("drafter", ["none", "token_recycling", "prompt_lookup", "draft_model"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_greedy_text_equals_generate(loaded, family, drafter):
    model, counted = recorded(loaded(family))
    draft = model if drafter == "draft_model" else None
    prompt = "one two one two one t"
    trace = generate(
        RunSettings(model, prompt, drafter, max_new_tokens=40, draft_model=draft, record_top=0)
    )
    assert trace.new_tokens == transformers_text(model, trace.prompt_tokens, 40)
    assert counted.replays >= len(trace.rounds)
    if drafter == "token_recycling":
        assert any(len(set(r.parent)) < len(r.parent) for r in trace.rounds), "trees that branch"
