"""A live run that runs out of memory fails with advice, and the next one works."""

from __future__ import annotations

import torch
from scripted import greedy_text

from workbench.engine.live import LiveRun
from workbench.engine.run import RunSettings
from workbench.models.session import Session

SOON_S = 20.0


def test_out_of_memory_in_a_live_run(loaded, monkeypatch):
    settings = RunSettings(loaded("llama"), "abcabcabca", "token_recycling", max_new_tokens=24)
    answer = greedy_text(settings.model, settings.model.encode(settings.prompt), 24)
    real, calls = Session._run, []

    def full(self, *args):
        calls.append(0)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("no more")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_run", full)
        run = LiveRun(settings)
        run.start()
        assert run.wait(SOON_S)
    assert run.state == "failed"
    assert "out of memory" in run.error
    assert "smaller" in run.error
    assert len(run.trace.rounds) == 2
    again = LiveRun(settings)
    again.start()
    assert again.wait(SOON_S)
    assert again.trace.new_tokens == answer
