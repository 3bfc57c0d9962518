"""PEARL: what is particular to drafting and checking at once."""

import math

import pytest
import torch

from workbench.core.errors import Mismatch
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import NO_TOKEN
from workbench.engine.decode import Decoding
from workbench.engine.run import RunSettings, generate
from workbench.engine.schedules.pearl import Pearl
from workbench.models.load import load
from workbench.models.session import Session
from workbench.testing import oracles
from workbench.testing.drafter_runs import Granted, emitted
from workbench.testing.toy_models import ToyModel


def run_of(schedule, target, draft, tokens, prompt, sampling=Sampling(0.0), drafter="draft_model"):
    run = Decoding(
        target.session(),
        make_method("drafter", drafter),
        make_method("verifier", "rejection"),
        Granted(),
        sampling,
        tokens,
        draft=draft.session(),
    )
    return list(schedule.decode(run, prompt))


@pytest.mark.parametrize("clock", ["threads", "simulated"])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 6])
def test_greedy_text_whatever_the_window(window, clock):
    target, draft = ToyModel.random(5, seed=1, scale=2.0), ToyModel.random(5, seed=8)
    prompt = [0, 1, 2, 3, 4, 0, 1][: window + 1]
    rounds = run_of(Pearl(window=window, clock=clock), target, draft, 40, prompt)
    assert emitted(rounds) == oracles.plain_greedy(target.rule, prompt, 40)


@pytest.mark.parametrize("window", [1, 3, 4])
def test_a_perfect_draft_gains_a_window_a_round(window):
    model, tokens = ToyModel.cycle(7), 41
    rounds = run_of(Pearl(window=window), model, model, tokens, [0, 1, 2])
    assert len(rounds) == 1 + math.ceil((tokens - 1) / window)
    assert rounds[0].report["mode"] == "pre" and len(rounds[0].emitted) == 1
    assert all(len(r.emitted) == window for r in rounds[1:-1])
    assert all(r.bonus == NO_TOKEN for r in rounds[:-1])


def test_a_hopeless_draft_gives_one_token_a_round():
    target = ToyModel.cycle(4)
    draft = ToyModel(lambda tokens: target.rule(tokens).roll(1), 4)  # never the target's choice
    rounds = run_of(Pearl(), target, draft, 12, [0, 1, 2])
    assert len(rounds) == 12
    assert all(r.report["mode"] == "pre" and len(r.emitted) == 1 for r in rounds)
    wasted = [lane for r in rounds for lane in r.lanes if lane.lane == "draft"]
    assert wasted and all(lane.fate == "wasted" for lane in wasted)


def test_every_token_has_one_test_or_is_a_residual_draw():
    target, draft = ToyModel.random(4, seed=1), ToyModel.random(4, seed=2)
    rounds = run_of(Pearl(window=3), target, draft, 300, [0, 1, 2], Sampling(1.0, seed=5))
    modes = {r.report["mode"] for r in rounds}
    assert modes == {"pre", "post"}
    for done in rounds[:-2]:  # the last ones may lack room for drafts
        kept = [done.tokens[node] for node in done.path]
        if done.bonus == NO_TOKEN:
            assert done.emitted == kept and len(kept) == len(done.tokens)
        else:
            assert done.emitted == [*kept, done.bonus] and len(kept) < len(done.tokens)


def test_the_simulated_clock_charges_the_longer_side():
    target, draft = ToyModel.random(4, seed=1), ToyModel.random(4, seed=2)
    rounds = run_of(Pearl(clock="simulated"), target, draft, 60, [0, 1, 2])
    at = 0.0
    for done in rounds:
        sides = {lane.lane: lane.end_ms - lane.start_ms for lane in done.lanes}
        assert all(lane.simulated for lane in done.lanes) and "Simulated" in done.note
        assert done.lanes[0].start_ms == pytest.approx(at)
        at += max(sides.values())
        assert done.ms.verify + done.ms.draft == pytest.approx(max(sides.values()))


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize("post", [True, False])
def test_the_switches_change_the_rounds_and_not_the_text(pre, post):
    target, draft = ToyModel.random(4, seed=1, scale=2.0), ToyModel.random(4, seed=2)
    schedule = Pearl(pre_verify=pre, post_verify=post)
    rounds = run_of(schedule, target, draft, 50, [0, 1, 2])
    assert emitted(rounds) == oracles.plain_greedy(target.rule, [0, 1, 2], 50)
    if not pre:
        assert all(r.report["mode"] == "post" for r in rounds[:-1])


def test_a_balanced_window_follows_the_times():
    target, draft = ToyModel.cycle(5), ToyModel.cycle(5)
    rounds = run_of(Pearl(window=0), target, draft, 60, [0, 1])
    assert emitted(rounds) == oracles.plain_greedy(target.rule, [0, 1], 60)
    assert all(1 <= len(r.tokens) <= 8 for r in rounds)


def test_other_drafters_are_refused():
    model = ToyModel.cycle(4)
    with pytest.raises(Mismatch, match="cannot drive.*prompt_lookup.*choose"):
        run_of(Pearl(), model, model, 4, [0, 1], drafter="prompt_lookup")


def test_on_the_embedded_pair():
    texts, target, draft = [], load("zoo:target"), load("zoo:draft")
    for schedule in ("sequential", Pearl(), Pearl(clock="simulated", window=2)):
        settings = RunSettings(
            target,
            "def read(self, size):\n",
            "draft_model",
            "exact_match",
            max_new_tokens=40,
            draft_model=draft,
            schedule=schedule,
        )
        trace = generate(settings)
        texts.append(trace.text)
        assert len(trace.new_tokens) == 40
    assert texts[0] == texts[1] == texts[2]
    assert trace.schedule.name == "pearl" and trace.rounds[0].lanes
    assert torch.isfinite(torch.tensor(trace.summary["tokens_per_s"]))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_block_in_one_call_is_the_block_drafted_step_by_step(monkeypatch, temperature):
    target, draft = load("zoo:target"), load("zoo:draft")
    settings = RunSettings(
        target,
        "def read(self, size):\n",
        "draft_model",
        "rejection",
        sampling=Sampling(temperature, seed=3),
        max_new_tokens=40,
        draft_model=draft,
        schedule=Pearl(clock="simulated", window=3),
    )
    real, whole = Session.run_on, []
    monkeypatch.setattr(Session, "run_on", lambda *args: whole.append(1) or real(*args))
    at_once = generate(settings)
    assert whole or draft.native is None, "no block was drafted in one call"
    monkeypatch.setattr(Session, "runs_on", lambda *args: False)
    step_by_step = generate(settings)
    assert at_once.new_tokens == step_by_step.new_tokens
    assert [r.tokens for r in at_once.rounds] == [r.tokens for r in step_by_step.rounds]
    for one, other in zip(at_once.rounds, step_by_step.rounds, strict=True):
        assert one.q_node == pytest.approx(other.q_node, abs=1e-5)
