"""Every family: tree rows, commit, continuation, generation, and the saboteurs of each."""

from __future__ import annotations

import copy

import numpy as np
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

from workbench.core.errors import ModelError
from workbench.core.tree import shape_of
from workbench.engine.run import RunSettings, generate
from workbench.models import session as session_module
from workbench.models.load import load
from workbench.models.probe import choose_mode
from workbench.testing.checkpoints import FAMILIES

FUSED = {"llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mixtral"}
STOCK = ("falcon", "gptj")  # families that the anatomy does not list
PASSES = [
    (family, mode)
    for family in [*FAMILIES, *STOCK]
    for mode in ("fused", "walk", "stock")
    if (mode != "fused" or family in FUSED) and (mode == "stock" or family not in STOCK)
]
PREFIX, ROWS = some_tokens(20), some_tokens(len(PARENT), seed=5)
PROMPT = "one two one two one t"


def in_mode(model, mode: str):
    """The same weights in a given pass."""
    other = copy.copy(model)
    other.mode = mode
    return other


def tree_deviation(model) -> float:
    session = model.session()
    session.sync(PREFIX)
    return deviation(session.forward(ROWS, PARENT).logits, tree_logits(model, PREFIX, ROWS))


@pytest.mark.parametrize("family", [*FAMILIES, *STOCK])
def test_the_fastest_pass_is_chosen(loaded, family):
    model = loaded(family)
    wanted = "fused" if family in FUSED else "stock" if family in STOCK else "walk"
    assert model.mode == wanted, model.reason
    assert model.trees
    assert model.spans == (family not in STOCK)


@pytest.mark.parametrize(("family", "mode"), PASSES)
def test_tree_rows_equal_plain_forwards(loaded, family, mode):
    assert tree_deviation(in_mode(loaded(family), mode)) <= 1e-5


@pytest.mark.parametrize(("family", "mode"), PASSES)
def test_commit_then_continue_equals_a_fresh_forward(loaded, family, mode):
    session = in_mode(loaded(family), mode).session()
    session.sync(PREFIX)
    session.forward(ROWS, PARENT)
    session.commit(path_to(LEAF))
    assert session.tokens == PREFIX + [ROWS[row] for row in path_to(LEAF)]
    check_next(session, 9)
    more = some_tokens(len(PARENT), seed=8)
    got = session.forward(more, PARENT).logits  # and another tree on top of it
    assert deviation(got, tree_logits(session.model, session.tokens, more)) <= 1e-5


@pytest.mark.parametrize(("family", "mode"), PASSES)
def test_a_block_equals_one_token_at_a_time(loaded, family, mode):
    model = in_mode(loaded(family), mode)
    block, single = model.session(), model.session()
    block.sync(PREFIX)
    single.sync(PREFIX)
    together = block.forward(ROWS).logits
    for row, token in enumerate(ROWS):
        alone = single.forward([token]).logits[-1]
        single.commit([0])
        assert deviation(together[row], alone.float()) <= 1e-5, f"row {row}"


def causal_block(parent, dtype, device):
    """Saboteur: every row sees all rows before it, as if the tree were a chain."""
    shape = shape_of(tuple(p - 1 for p in parent[1:]))
    n = len(parent)
    mask = torch.full((n, n), torch.finfo(dtype).min, dtype=dtype).triu(1)
    return mask, torch.from_numpy(np.array(shape.row_depth))


def row_positions(parent, dtype, device):
    """Saboteur: the right mask, but positions count rows instead of depth."""
    mask, _ = TRUE_BLOCK(parent, dtype, device)
    return mask, torch.arange(len(parent))


TRUE_BLOCK = session_module.tree_block


@pytest.mark.parametrize("saboteur", [causal_block, row_positions])
@pytest.mark.parametrize(("family", "mode"), PASSES)
def test_a_wrong_mask_or_position_is_seen(loaded, monkeypatch, family, mode, saboteur):
    monkeypatch.setattr(session_module, "tree_block", saboteur)
    assert tree_deviation(in_mode(loaded(family), mode)) > 1e-2


@pytest.mark.parametrize("saboteur", [causal_block, row_positions])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_probe_at_load_sees_it_too(loaded, monkeypatch, family, saboteur):
    monkeypatch.setattr(session_module, "tree_block", saboteur)
    model = in_mode(loaded(family), "stock")
    choose_mode(model)
    assert not model.trees
    assert "differs by" in model.reason


@pytest.mark.parametrize("drafter", ["token_recycling", "prompt_lookup", "draft_model"])
@pytest.mark.parametrize("family", [*FAMILIES, *STOCK])
def test_greedy_text_equals_generate(loaded, family, drafter):
    model = loaded(family)
    draft = model if drafter == "draft_model" else None
    trace = generate(
        RunSettings(model, PROMPT, drafter, max_new_tokens=40, draft_model=draft, record_top=0)
    )
    assert trace.new_tokens == transformers_text(model, trace.prompt_tokens, 40)
    if drafter == "draft_model":  # it agrees with itself: every draft is kept
        assert trace.summary["acceptance_ratio"] == 1
        assert len(trace.rounds) == 7  # 40 = 6 * (5 + 1) + 4
    else:
        assert any(r.tokens for r in trace.rounds), "nothing was ever drafted"


def test_random_text_still_lets_drafts_through(loaded):
    """The equality above also met rounds that kept a part of their draft (not all, not none)."""
    kept = set()
    for family in FAMILIES:
        settings = RunSettings(loaded(family), PROMPT, "token_recycling", max_new_tokens=40)
        kept.update((r.accepted, max(r.depth, default=0)) for r in generate(settings).rounds)
    assert any(0 < accepted < depth for accepted, depth in kept)
    assert any(accepted >= 2 for accepted, depth in kept)


@pytest.mark.parametrize("mode", ["walk", "stock"])
@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2", "opt", "gpt_neox", "mixtral"])
def test_eager_attention_is_exact(checkpoint, family, mode):
    model = load(str(checkpoint(family)))
    model.network.set_attn_implementation("eager")
    assert tree_deviation(in_mode(model, mode)) <= 1e-5


ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "olmo2"])
def test_rope_parameters_of_transformers_5(loaded, family, rope):
    model = loaded(family, rope_parameters={"rope_theta": 500.0, **ROPES[rope]})
    walked = family == "olmo2" or rope == "dynamic"  # tables that change with length are not kept
    assert model.mode == ("walk" if walked else "fused"), model.reason
    assert tree_deviation(model) <= 1e-5
    plain, scaled = loaded(family).session(), model.session()
    plain.sync(PREFIX)
    scaled.sync(PREFIX)
    difference = deviation(plain.forward([1]).logits, scaled.forward([1]).logits)
    assert difference > 1e-3 or rope == "dynamic"  # dynamic changes nothing this early


def test_angles_that_change_with_length_end_the_context_there(loaded):
    quarter = [1.0] * 4
    model = loaded(
        "phi3",
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
            "short_factor": quarter,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 64,
        },
    )
    assert model.context_tokens == 64
    assert "rotary angles" in model.context_reason
    assert tree_deviation(model) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe", "gemma2"])
def test_half_precision_loads_and_decodes(checkpoint, family):
    folder = checkpoint(family, dtype=torch.bfloat16)
    model = load(str(folder), dtype="bfloat16")
    assert model.dtype == "bfloat16"
    assert model.trees, model.reason
    trace = generate(RunSettings(model, PROMPT, "token_recycling", max_new_tokens=24))
    assert len(trace.new_tokens) == 24
    wide = load(str(folder), dtype="float32")
    assert wide.dtype == "float32"
    assert tree_deviation(wide) <= 1e-5


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_sliding_window_works_inside_and_is_refused_beyond(loaded, family):
    model = loaded(family, sliding_window=32)
    assert model.context_tokens == 32
    prefix = some_tokens(24)
    session = model.session()
    session.sync(prefix)
    got = session.forward(ROWS, PARENT).logits  # the last row that fits ends at the window
    assert deviation(got, tree_logits(model, prefix, ROWS)) <= 1e-5
    session.commit(path_to(LEAF))
    check_next(session, 9)
    with pytest.raises(Exception, match="sliding window") as raised:
        session.forward(ROWS, PARENT)
    assert "shorten the prompt" in str(raised.value)
    check_next(session, 9)
    trace = generate(RunSettings(model, "x" * 20, "token_recycling", max_new_tokens=40))
    assert trace.finish == "context"
    assert trace.new_tokens == transformers_text(model, trace.prompt_tokens, len(trace.new_tokens))
    assert len(trace.new_tokens) == 12


def test_a_window_wider_than_the_context_is_no_limit(loaded):
    assert loaded("mistral", sliding_window=4096).context_tokens == 256


def test_a_position_bias_made_inside_the_model_leaves_chains(loaded):
    model = loaded("mpt")
    assert (model.mode, model.trees) == ("stock", False)
    assert "differs by" in model.reason
    trace = generate(RunSettings(model, PROMPT, "prompt_lookup", max_new_tokens=40))
    assert max(len(r.tokens) for r in trace.rounds) > 1
    assert trace.new_tokens == transformers_text(model, trace.prompt_tokens, 40)
    with pytest.raises(ModelError, match="branching tree cannot be scored.*differs by"):
        generate(RunSettings(model, PROMPT, "token_recycling", max_new_tokens=40))


@pytest.mark.parametrize("family", ["mamba", "falcon_h1", "recurrent_gemma"])
def test_recurrent_layers_are_refused(checkpoint, family):
    with pytest.raises(ModelError, match="recurrent layers cannot be rolled back"):
        load(str(checkpoint(family)))


def test_a_family_whose_cache_is_another_is_refused(checkpoint):
    with pytest.raises(ModelError, match="does not reproduce its plain forward"):
        load(str(checkpoint("bloom")))


def test_a_network_that_cannot_run_itself_is_refused(checkpoint):
    folder = checkpoint("stablelm", hidden_size=48)  # an odd number of rotated dimensions
    with pytest.raises(ModelError, match="its own forward fails"):
        load(str(folder))
