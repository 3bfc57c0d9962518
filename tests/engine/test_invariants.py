"""After every round: both caches are a prefill of the text; a seed fixes everything but times."""

from __future__ import annotations

import dataclasses
import math
import time

import msgspec
import pytest
import torch
from scripted import Scripted, greedy_text, run_by_hand

from workbench.core.decoding import Need
from workbench.core.errors import Mismatch
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.core.trace import Ms, Trace
from workbench.engine.baseline import measure_plain
from workbench.engine.replay import acceptance_by_law
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.testing.variants import variants

PROMPT = [97, 98, 99, 97, 98, 99, 97]
TEXT = "abcabca"
# Defaults, with untrained heads where a method has any: none fits these random models.
DRAFTERS = [variants(card)[0] for card in methods("drafter")]
POLICIES = [variants(card)[0] for card in methods("policy")]
each_drafter = pytest.mark.parametrize("drafter", DRAFTERS, ids=lambda drafter: drafter.name)


@pytest.fixture(scope="module")
def model(loaded):
    return loaded("llama")


@pytest.fixture(scope="module")
def cousin(model, tmp_path_factory):
    """A draft that agrees often but not always: the target with noise on its weights."""
    folder = tmp_path_factory.mktemp("cousin")
    generator = torch.Generator().manual_seed(5)
    weights = model.network.state_dict()
    noisy = {k: w + 0.015 * torch.randn(w.shape, generator=generator) for k, w in weights.items()}
    model.network.save_pretrained(folder, state_dict=noisy)
    model.tokenizer.save_pretrained(folder)
    return load(str(folder))


def needs_draft(drafter) -> bool:
    return Need.DRAFT in drafter.needs


def check_cache(session, text: list[int]) -> int:
    """Every stored key and value up to the common prefix is that of a fresh prefill."""
    common = 0
    while common < min(len(session), len(text)) and session.tokens[common] == text[common]:
        common += 1
    fresh = session.model.session()
    fresh.sync(text[:common])
    for mine, wanted in zip(session._cache.layers, fresh._cache.layers, strict=True):
        assert mine.length == len(session)
        torch.testing.assert_close(mine.keys[:, :, :common], wanted.keys, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(mine.values[:, :, :common], wanted.values, atol=2e-5, rtol=1e-4)
    return common


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@each_drafter
def test_caches_equal_a_prefill_after_every_round(model, cousin, drafter, temperature):
    draft = cousin.session() if needs_draft(drafter) else None
    behind = []

    def each(run, text):
        assert run.target.tokens == text[:-1]  # the root is stored with the next round
        assert check_cache(run.target, text) == len(text) - 1
        if draft is not None:
            # A drafter that learns reads with a copy of the draft model, and leaves that one empty.
            reader = run.drafting.session if Need.LEARNER in drafter.needs else draft
            behind.append(len(text) - check_cache(reader, text))

    options = {"each": each, "draft": draft, "sampling": Sampling(temperature, seed=2)}
    options["verifier"] = "multi_round"  # the rule that keeps most of what was drawn
    done = run_by_hand(model, PROMPT, drafter, 24, **options)
    assert len(done.rounds) > 2
    alone = all(knob.kind != "method" for knob in drafter.card.knobs)
    if draft is not None and alone:  # with other parts, text comes that the draft never wrote
        accepted = {r.accepted for r in done.rounds[:-1]}
        whole = all(r.accepted == max(r.depth, default=0) for r in done.rounds[:-1])
        assert len(accepted) > 1 or whole, "the pattern of acceptance never changed"
        trees = any(len(r.tokens) > max(r.depth, default=0) for r in done.rounds)
        # A chain leaves at most its last token and the root unread; a tree's rows are not stored.
        assert max(behind[:-1]) <= (2 + max(max(r.depth) for r in done.rounds[:-1]) if trees else 2)


@pytest.mark.parametrize("right", [(0,), (5,), (5, 0, 0, 2), (1, 4, 0)])
@pytest.mark.parametrize("branching", [False, True])
def test_target_cache_under_scripted_acceptance(model, right, branching):
    answer = greedy_text(model, PROMPT, 32)
    script = Scripted((*PROMPT, *answer), right, wrong=1, branching=branching)

    def each(run, text):
        assert run.target.tokens == text[:-1]
        assert check_cache(run.target, text) == len(text) - 1

    assert run_by_hand(model, PROMPT, script, 24, each=each).new == answer[:24]


def timeless(trace: Trace) -> bytes:
    """A trace without its times."""
    rounds = [
        msgspec.structs.replace(r, ms=Ms(0.0, 0.0, 0.0, 0.0), forward_ms=0.0) for r in trace.rounds
    ]
    return trace.with_(rounds=rounds, prefill_ms=0.0).to_json()


@pytest.mark.parametrize("verifier", [card.name for card in methods("verifier")])
@each_drafter
def test_a_seed_decides_everything_but_the_times(model, cousin, drafter, verifier):
    width = 1 if make_method("verifier", verifier).chains_only else 8
    settings = RunSettings(
        model,
        TEXT,
        drafter,
        verifier,
        make_method("policy", "heuristic", width=width),
        Sampling(0.9, top_k=50, top_p=0.95, seed=11),
        24,
        cousin,
    )
    torch.manual_seed(1)
    try:
        first = generate(settings)
    except Mismatch as refusal:  # the conformance suite says which pairs must fit
        assert "choose" in str(refusal)
        return
    torch.manual_seed(99)  # nothing may draw from a generator that is not the run's
    assert timeless(generate(settings)) == timeless(first)
    other = generate(settings.change(sampling=Sampling(0.9, top_k=50, top_p=0.95, seed=12)))
    assert other.new_tokens != first.new_tokens


def test_nothing_leaks_from_one_run_to_the_next(model, cousin):
    """The same instances, another text in between: the second run is the first again."""
    drafter, policy = make_method("drafter", "token_recycling"), make_method("policy", "heuristic")
    settings = RunSettings(model, TEXT, drafter, policy=policy, max_new_tokens=24)
    first = timeless(generate(settings))
    generate(settings.change(prompt="a quite different text, a quite different text"))
    assert timeless(generate(settings)) == first
    pair = settings.change(drafter="draft_model", draft_model=cousin)
    depths = [[r.budget.depth for r in generate(pair).rounds] for _ in range(2)]
    assert depths[0] == depths[1]
    assert depths[0][0] == 5
    assert len(set(depths[0])) > 2, "the policy never moved"


@pytest.mark.parametrize("verifier", ["rejection", "multi_round"])
def test_a_draft_that_is_the_target_is_always_kept(model, verifier):
    """p equals q at every node: no residual is left, and nothing becomes NaN."""
    settings = RunSettings(
        model, TEXT, "draft_model", verifier, "fixed", Sampling(1.0, seed=3), 40, model
    )
    trace = generate(settings)
    assert trace.summary["acceptance_ratio"] == 1
    assert all(math.isfinite(v) for r in trace.rounds for v in (*r.accept, *r.stop))
    assert min(v for r in trace.rounds for v in r.accept) > 0.999


def test_every_combination_of_methods_runs(model, cousin):
    """No path of the code is dead: each drafter x verifier x policy, greedy and drawn."""
    ran = refused = 0
    for drafter in DRAFTERS:
        for rule in (card.make() for card in methods("verifier")):
            for policy in POLICIES:
                for temperature in (0.0, 1.0):
                    settings = RunSettings(
                        model,
                        TEXT,
                        drafter,
                        rule,
                        dataclasses.replace(policy, width=1),
                        Sampling(temperature),
                        6,
                        cousin,
                        3,
                    )
                    try:
                        assert len(generate(settings).new_tokens) == 6
                        ran += 1
                    except Mismatch as refusal:
                        assert "choose" in str(refusal)
                        refused += 1
    assert ran > 5 * refused, "most pairs fit"


@pytest.mark.parametrize("verifier", ["exact_match", "multi_round", "rejection"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replay_gives_the_recorded_verdict(model, cousin, verifier, temperature):
    """All of every law is stored here, so a replay is exact."""
    settings = RunSettings(
        model,
        TEXT,
        make_method("drafter", "draft_model", siblings=1 if verifier == "rejection" else 3),
        verifier,
        "fixed",
        Sampling(temperature, seed=4),
        24,
        cousin,
        record_top=model.vocab_size,
    )
    title = settings.verifier.card.title
    checked = 0
    for done in generate(settings).rounds:
        for node, recorded in enumerate(done.accept):
            laws = acceptance_by_law(done, node)
            assert laws[title] == pytest.approx(recorded, abs=1e-5)
            checked += 0 < recorded < 1
    assert checked > 10 or temperature == 0


@each_drafter
def test_times_add_up(model, cousin, drafter):
    settings = RunSettings(model, TEXT, drafter, max_new_tokens=40, draft_model=cousin)
    began = time.perf_counter()
    trace = generate(settings)
    wall = (time.perf_counter() - began) * 1e3
    for done in trace.rounds:
        assert min(done.ms.draft, done.ms.verify, done.ms.commit, done.ms.other) >= 0
        assert 0 < done.forward_ms <= done.ms.total
        drafted = max(done.depth, default=0)
        if Need.TARGET in drafter.needs:  # it drafts with the target itself
            assert done.forwards.target >= 1
            continue
        assert done.forwards.target == 1
        if needs_draft(drafter) and drafted:  # a tree's root is fed apart from the text before it
            assert 1 <= done.forwards.draft <= drafted + 1
        elif not needs_draft(drafter):
            assert done.forwards.draft == 0
    assert trace.prefill_ms > 0
    inside = trace.total_ms + trace.prefill_ms
    assert 0.5 * wall < inside <= wall
    assert 0 <= trace.summary["outside_forward_ratio"] < 1


def test_the_summary_counts_what_it_says(model, cousin):
    trace = generate(RunSettings(model, TEXT, "draft_model", max_new_tokens=24, draft_model=cousin))
    kept = [len(r.path) for r in trace.rounds]
    summary = trace.summary
    assert summary["new_tokens"] == 24
    assert summary["rounds"] == len(kept)
    assert summary["mean_accepted"] == pytest.approx(sum(kept) / len(kept))
    assert summary["mean_emitted"] == pytest.approx(24 / len(kept))
    assert summary["tokens_per_s"] == pytest.approx(24 / trace.total_ms * 1e3)
    assert trace.prompt + trace.text == model.decode(trace.prompt_tokens + trace.new_tokens) or (
        "\ufffd" in trace.text  # a character split over tokens
    )


def test_low_precision_differs_only_at_near_ties(checkpoint):
    """In bf16 a block may round otherwise than single tokens: only near ties may change sides."""
    model = load(str(checkpoint("llama", dtype=torch.bfloat16)), dtype="bfloat16")
    for prompt in ("abcabc", "one two one two", "0101010"):
        settings = RunSettings(model, prompt, "none", max_new_tokens=40)
        alone = generate(settings).new_tokens
        drafted = generate(settings.change(drafter="token_recycling")).new_tokens
        place = next(
            (i for i, (a, b) in enumerate(zip(alone, drafted, strict=True)) if a != b), None
        )
        if place is not None:
            session = model.session()
            logits = session.sync(model.encode(prompt) + alone[:place]).logits[-1].float()
            best = logits.topk(2).values
            assert float(best[0] - best[1]) < 0.1 * float(logits.std())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ties_are_broken_alike_in_a_block_and_alone(loaded, family):
    """Twin rows in the head make every best logit a tie of two."""
    model = loaded(family, seed=6)
    head = model.network.get_output_embeddings().weight
    whole = head.clone()
    head[130:256] = head[:126]
    try:
        settings = RunSettings(model, TEXT, "none", max_new_tokens=32)
        alone = generate(settings)
        tied = sum(p.probs[:1] == p.probs[1:2] for r in alone.rounds for p in r.p_top)
        drawn = generate(settings.change(sampling=Sampling(1.0), max_new_tokens=4))
        assert any(len(set(p.probs[:2])) == 1 for r in drawn.rounds for p in r.p_top) or tied
        for drafter in ("token_recycling", "prompt_lookup", "draft_model"):
            other = generate(settings.change(drafter=drafter, draft_model=model))
            assert other.new_tokens == alone.new_tokens
    finally:
        head.copy_(whole)


def test_the_baseline_measures_plain_decoding(model):
    seen = []
    found = measure_plain(model, TEXT, tokens=8, repeats=3, progress=seen.append)
    assert found.tokens == 24
    assert 0 < found.ms_low <= found.ms_per_token <= found.ms_high
    assert seen == [1 / 3, 2 / 3, 1.0]
    with pytest.raises(ValueError, match="nothing could be measured"):
        measure_plain(model, "x" * 255, tokens=8, repeats=1)
    with pytest.raises(ValueError, match="nothing could be measured"):
        measure_plain(model, TEXT, tokens=8, repeats=0)


def test_the_baseline_does_not_stop_at_eos(checkpoint):
    stop = greedy_text(load(str(checkpoint("llama"))), PROMPT, 3)[1]
    model = load(str(checkpoint("llama", eos_token_id=stop)))
    assert measure_plain(model, TEXT, tokens=8, repeats=1).tokens == 8
