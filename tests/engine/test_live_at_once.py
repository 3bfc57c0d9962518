"""Several live runs at once on the same models: none waits for ever, none disturbs another."""

from __future__ import annotations

import pytest
from scripted import greedy_text

from workbench.engine.live import LiveRun
from workbench.engine.run import RunSettings

SOON_S = 20.0  # far more than anything here takes


@pytest.mark.parametrize("drafters", [("token_recycling",) * 2, ("draft_model", "prompt_lookup")])
def test_two_runs_on_one_model_at_once(loaded, drafters):
    model, texts = loaded("llama"), ("abcabcabca", "a quite different prompt ")
    runs = [
        LiveRun(RunSettings(model, text, drafter, max_new_tokens=24, draft_model=model))
        for drafter, text in zip(drafters, texts, strict=True)
    ]
    for run in runs:
        run.start()
    assert all(run.wait(SOON_S) for run in runs)
    assert [run.state for run in runs] == ["finished", "finished"], [run.error for run in runs]
    for run in runs:
        assert run.trace.new_tokens == greedy_text(model, run.trace.prompt_tokens, 24)


def test_two_models_that_draft_for_each_other(loaded):
    """Each run needs both models' locks; taken in two orders they would wait for ever."""
    a, b = loaded("llama"), loaded("llama", num_hidden_layers=2, seed=0)
    runs = [
        LiveRun(RunSettings(t, "abcabcabca", "draft_model", max_new_tokens=60, draft_model=d))
        for t, d in ((a, b), (b, a), (a, b), (b, a))
    ]
    for run in runs:
        run.start()
    assert all(run.wait(SOON_S) for run in runs), "they wait for each other"
    assert runs[0].trace.new_tokens == runs[2].trace.new_tokens
    assert runs[1].trace.new_tokens == runs[3].trace.new_tokens
    assert runs[0].trace.new_tokens == greedy_text(a, runs[0].trace.prompt_tokens, 60)
