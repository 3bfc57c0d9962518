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

from workbench.core.errors import NotFinite
from workbench.core.span import Span
from workbench.engine.run import RunSettings, generate
from workbench.models import graphs, probe
from workbench.models.graphs import GraphWalk
from workbench.models.recording import CalledAgain
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


class Counted:
    """A recorder that counts what it takes down and how often that is replayed."""

    def __init__(self, recorder=CalledAgain):
        self.recorder, self.made, self.replays = recorder, 0, 0

    def __call__(self, work):
        self.made += 1
        inner, outer = self.recorder(work), self

        class Recording:
            def replay(self):
                outer.replays += 1
                return inner.replay()

        return Recording()


def recorded(model, recorder=None):
    """The same weights through recordings, and what counts them."""
    other, counted = copy.copy(model), recorder or Counted()
    other.__dict__.update(native=None, graphs=GraphWalk(model.anatomy, counted))
    other.graphs.refused = ""
    return other, counted


def walked(model):
    """The same weights through torch's walk."""
    other = copy.copy(model)
    other.__dict__.update(native=None, graphs=None)
    return other


def any_tree(n: int, seed: int = 1) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(n, generator=generator).tolist()
    return tuple(-1 if row == 0 else int(draws[row] * row) for row in range(n))


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_tree_rows_equal_plain_forwards_at_every_edge(loaded, family, changes):
    model, counted = recorded(loaded(family, **changes))
    prefix = some_tokens(20)
    for n in EDGES:
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


# -- what changes under it ------------------------------------------------------------------------


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
    for _ in range(2):
        session = model.session()
        session.sync(some_tokens(9))
        made = counted.made
        check_next(session, 5)
        assert counted.made == made + 1
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
