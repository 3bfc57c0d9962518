"""SWIFT: what skipping means, how a set is scored, and how the search goes on."""

import copy

import numpy as np
import pytest
import torch

from workbench.core.decoding import Budget
from workbench.core.gaussian_process import upper_confidence
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.span import Span
from workbench.drafters.swift import SkipSearch, Swift
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.testing import oracles
from workbench.testing.draft_checks import collect_drafts
from workbench.testing.drafter_runs import Drive, emitted, run_rounds
from workbench.testing.tiny_network import tiny_network
from workbench.verifiers.exact_match import ExactMatch

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 1]


@pytest.fixture(scope="module")
def model():
    return tiny_network(5, layers=6, seed=2)


class Nothing(torch.nn.Module):
    """A sub-layer whose output adds nothing to the stream."""

    def forward(self, hidden, *args, **kwargs):
        return torch.zeros_like(hidden)


class NoAttention(Nothing):
    def forward(self, hidden_states, *args, **kwargs):
        return torch.zeros_like(hidden_states), None


def thinned(model, attention, mlp):
    """The network with those sub-modules taken out by hand."""
    network = copy.deepcopy(model.network)
    for layer in attention:
        network.model.layers[layer].self_attn = NoAttention()
    for layer in mlp:
        network.model.layers[layer].mlp = Nothing()
    return network


@pytest.mark.parametrize(("attention", "mlp"), [((), ()), ((2,), ()), ((), (1, 4)), ((1, 3), (3,))])
def test_a_skipped_pass_is_the_model_without_those_parts(model, attention, mlp):
    span = Span.without(6, attention, mlp)
    session = model.session()
    got = session.forward(PROMPT, span=span).logits
    with torch.inference_mode():
        ids = torch.tensor([PROMPT])
        wanted = thinned(model, attention, mlp)(input_ids=ids, use_cache=False).logits[0]
    assert torch.allclose(got, wanted, atol=1e-6)
    # and token by token, with keys and values of the layers that run only
    session = model.session()
    rows = []
    for token in PROMPT:
        rows.append(session.forward([token], span=span).logits[0])
        session.commit([0])
    assert torch.allclose(torch.stack(rows), wanted, atol=1e-6)


def drive(model, drafter, tokens=24):
    """A drafter that has decoded for a while."""
    made = Drive(drafter, model, None, Sampling(0.0), PROMPT)
    while len(made.ctx.tokens) < len(PROMPT) + tokens:
        made.round(Budget(3, 6, 2), ExactMatch())
    return made


def test_skipping_nothing_predicts_everything(model):
    drafter = Swift(ratio=0.0, patience=0)
    made = drive(model, drafter)
    state = SkipSearch(np.zeros(8), start=len(PROMPT))
    assert drafter.matchness(made.ctx, state, made.ctx.tokens, np.zeros(8)) == 1.0
    rounds = run_rounds(model, drafter, ExactMatch(), prompt=PROMPT, tokens=30)
    drafted = [r for r in rounds if r.tokens]
    assert drafted and all(r.accepted == max(r.depth) for r in drafted)


def test_matchness_is_teacher_forcing(model):
    drafter = Swift(window=16)
    made = drive(model, drafter)
    for seed in range(5):
        skipped = (np.random.default_rng(seed).random(8) < 0.4).astype(float)
        state = SkipSearch(np.zeros(8), start=len(PROMPT))
        parallel = drafter.matchness(made.ctx, state, made.ctx.tokens, skipped)
        session, text, hits = model.session(), made.ctx.tokens, 0
        session.sync(text[: len(PROMPT) - 1])  # the prompt's keys and values are the full model's
        for place in range(len(PROMPT), len(PROMPT) + 16):
            span = drafter.span(6, skipped)
            logits = session.forward(text[place - 1 : place], span=span).logits[-1]
            session.commit([0])
            hits += int(logits.argmax()) == text[place]
        assert parallel == hits / 16


def test_text_is_the_targets_for_any_skip_set(model):
    wanted = oracles.plain_greedy(model.rule, PROMPT, 24)
    for seed in range(20):  # the first one skips everything that may be skipped

        class Stuck(Swift):
            def init(self, ctx, seed=seed):
                marks = np.random.default_rng(seed).random(8) < (1.0 if seed == 0 else 0.5)
                return SkipSearch(marks.astype(float), start=len(ctx.tokens))

        rounds = run_rounds(model, Stuck(), ExactMatch(), prompt=PROMPT, tokens=24)
        assert emitted(rounds) == wanted


@pytest.mark.parametrize("verifier", ["rsd", "multi_round"])
def test_three_siblings_of_four_tokens_give_the_targets_law(verifier):
    """Sampling with the thinned model, enumerated: every ordered triple and what it leads to."""
    model = tiny_network(4, layers=4, seed=6)
    drive = Drive(Swift(ratio=0.5, most_siblings=3), model, None, Sampling(3.0), PROMPT)
    drafts = collect_drafts(drive, Budget(1, 3, 3))
    assert {len(tree) for tree, _ in drafts} == {3} and len(drafts) == 24

    @oracles.remembered
    def law_of(new: tuple[int, ...]) -> torch.Tensor:
        return drive.ctx.sampling.law(model.rule([*PROMPT, *new]))

    joint, rule = torch.zeros(4, 4, dtype=torch.float64), make_method("verifier", verifier)
    for tree, chance in drafts:
        verdict = rule.verify(tree, oracles.target_laws(tree, law_of))
        joint += chance * oracles.emitted_law(verdict, tree, law_of, 4, length=2)
    assert torch.allclose(joint, oracles.joint_law(law_of, 4, 2), atol=1e-12)


def test_the_first_set_is_scored_before_it_can_be_replaced(model):
    made = drive(model, Swift(window=8, patience=50), tokens=60)
    state = made.state
    assert len(state.scores) >= 3
    fresh = Drive(made.drafter, model, None, Sampling(0.0), PROMPT).state
    assert np.array_equal(state.points[0], fresh.skipped), "the first set was never scored"
    assert state.score == max(state.scores), "the best of all scored sets, the first one included"
    sizes = {int(point.sum()) for point in state.points}
    assert len(sizes) == 1, "every proposal leaves out the same number of sub-layers"


def test_a_new_text_is_scored_anew(model):
    first = drive(model, Swift(window=8), tokens=40)
    drafter = first.drafter
    other = Drive(drafter, model, None, Sampling(0.0), [2, 2, 1, 0, 2])
    state = drafter.resume(other.ctx, first.state)
    assert np.array_equal(state.skipped, first.state.skipped)
    assert state.score is None and state.session is None


def test_bayesian_proposals_prefer_what_looks_good():
    points = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], dtype=float)
    scores = np.array([0.9, 0.1, 0.5])
    candidates = np.array([[0, 0, 1, 1], [1, 1, 0, 0]], dtype=float)
    near, far = upper_confidence(points, scores, candidates, kappa=0.0)
    assert near == pytest.approx(0.9, abs=0.05) and far == pytest.approx(0.1, abs=0.05)
    known, unknown = upper_confidence(
        points, np.array([0.5, 0.5, 0.5]), np.array([[0, 0, 1, 1], [1, 0, 0, 1.0]]), kappa=2.0
    )
    assert unknown > known


def test_the_search_is_recorded_on_the_embedded_model():
    target = load("zoo:target")
    settings = RunSettings(
        target, "class Reader:\n    def read(self):\n", Swift(window=8), max_new_tokens=60
    )
    trace = generate(settings)
    told = [r.report for r in trace.rounds if "best" in r.report]
    assert told and told[0]["source"] == "first"
    best = [report["best"] for report in told]
    assert best == sorted(best)
    assert all(0 not in report["skip_attention"] for report in told), "the first layer always runs"
    plain = generate(settings.change(drafter="none"))
    assert trace.text == plain.text
