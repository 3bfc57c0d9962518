"""Start, Pause, Step, Stop from any thread, in any order; nothing hangs and nothing is lost."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from scripted import Scripted, greedy_text

from workbench.core.trace import Trace
from workbench.engine import decode as decode_module
from workbench.engine.live import LiveRun
from workbench.engine.run import RunSettings
from workbench.verifiers.exact_match import ExactMatch

TEXT, COUNT = "abcabcabca", 24
SOON_S = 20.0  # far more than anything here takes


@pytest.fixture(scope="module")
def settings(loaded) -> RunSettings:
    return RunSettings(loaded("llama"), TEXT, "token_recycling", max_new_tokens=COUNT)


@pytest.fixture(scope="module")
def answer(settings) -> list[int]:
    return greedy_text(settings.model, settings.model.encode(TEXT), COUNT)


def until(condition) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def test_from_start_to_finish(settings, answer):
    calls = []
    run = LiveRun(settings, listener=lambda: calls.append(run.state if calls is not None else ""))
    assert (run.state, run.error, run.trace.rounds) == ("idle", None, [])
    assert not run.wait(0.01)
    run.start()
    assert run.wait(SOON_S)
    assert (run.state, run.error) == ("finished", None)
    assert run.trace.new_tokens == answer
    assert run.trace.finish == "length"
    assert (run.progress.done, run.progress.total, run.progress.eta_s) == (COUNT, COUNT, 0.0)
    assert len(calls) >= len(run.trace.rounds)
    assert calls[-1] == "finished"


def test_the_settings_are_checked_before_any_thread(settings):
    with pytest.raises(ValueError, match="empty"):
        LiveRun(settings.change(prompt=""))


def test_steps_are_single_rounds(settings, answer):
    run = LiveRun(settings)
    for count in range(1, 4):
        run.step()
        until(lambda: run.state == "paused")
        assert len(run.trace.rounds) == count
        time.sleep(0.02)
        assert len(run.trace.rounds) == count, "it went on by itself"
    kept = run.trace.new_tokens
    assert kept == answer[: len(kept)]
    assert run.progress.eta_s is None or run.progress.eta_s > 0
    run.start()
    assert run.wait(SOON_S)
    assert run.trace.new_tokens == answer


def test_stepping_to_the_end_finishes(settings, answer):
    run = LiveRun(settings)
    for _ in range(COUNT + 1):
        run.step()
        until(lambda: run.state != "running")
        if run.state == "finished":
            break
    assert run.state == "finished"
    assert run.trace.new_tokens == answer
    run.step()
    run.start()
    run.pause()
    assert run.state == "finished", "a late button press changes nothing"


def test_a_pause_holds_and_a_start_goes_on(settings, answer):
    run = LiveRun(settings)
    run.start()
    run.pause()
    assert run.state in ("paused", "finished")
    until(lambda: not settings.model.lock._is_owned() and run.state != "running")
    time.sleep(0.05)
    before = len(run.trace.rounds)
    time.sleep(0.05)
    assert len(run.trace.rounds) == before
    run.start()
    assert run.wait(SOON_S)
    assert run.trace.new_tokens == answer


def test_a_trace_is_made_once_a_round_and_the_run_does_not_wait_for_it(settings, answer):
    run = LiveRun(settings)
    run.step()
    until(lambda: run.state == "paused")
    kept = run.trace
    assert run.trace is kept and len(kept.rounds) == 1
    real, entered, gate, opened = run._run.trace, threading.Event(), threading.Event(), []
    run._run.trace = lambda: (entered.set(), opened.append(gate.wait(SOON_S)), real())[2]
    run.step()
    until(lambda: run.state == "paused")
    reader = threading.Thread(target=lambda: run.trace)
    reader.start()
    assert entered.wait(SOON_S)
    run.start()
    assert run.wait(SOON_S)
    gate.set()
    reader.join()
    assert all(opened), "the run waited for somebody who reads it"
    assert len(kept.rounds) == 1, "a snapshot never grows"
    assert run.trace.new_tokens == answer and run.trace.finish == "length"


def test_a_stop_keeps_the_partial_text(settings, answer):
    run = LiveRun(settings.change(max_new_tokens=200))
    run.step()
    until(lambda: run.state == "paused")
    run.stop(SOON_S)
    assert run.state == "stopped"
    trace = run.trace
    assert trace.finish == "stopped"
    assert trace.rounds
    assert trace.new_tokens == answer[: len(trace.new_tokens)]
    assert trace.text
    assert Trace.from_json(trace.to_json()) == trace
    run.start()
    assert run.state == "stopped"


def test_a_stop_before_the_start(settings):
    run = LiveRun(settings)
    run.stop()
    run.start()
    assert run.wait(1)
    assert (run.state, run.trace.rounds, run.trace.finish) == ("stopped", [], "stopped")


def test_a_stop_between_draft_and_verify(settings, answer, monkeypatch):
    """The drafter has proposed, Stop is pressed: the target is not asked any more."""
    run = LiveRun(settings)
    drafter, real, forwards = type(settings.drafter), type(settings.drafter).propose, []

    def propose(self, ctx, state, budget):
        proposed = real(self, ctx, state, budget)
        if len(run._run._rounds) == 2:
            run.stop()
            forwards.append(run._run.decoding.target.forwards)
        return proposed

    monkeypatch.setattr(drafter, "propose", propose)
    run.start()
    assert run.wait(SOON_S)
    assert run.state == "stopped"
    assert len(run.trace.rounds) == 2
    assert forwards == [run._run.decoding.target.forwards]
    assert run.trace.new_tokens == answer[: len(run.trace.new_tokens)]


def test_a_stop_in_the_middle_of_a_long_draft(loaded):
    """The draft model is asked no further once Stop was pressed."""
    model = loaded("llama")
    run = LiveRun(RunSettings(model, TEXT, "draft_model", max_new_tokens=100, draft_model=model))
    session, real = run._run.decoding.draft, run._run.decoding.draft.forward

    def forward(*args, **kwargs):
        if session.forwards == 2:
            run.stop()
        return real(*args, **kwargs)

    session.forward = forward
    run.start()
    assert run.wait(SOON_S)
    assert run.state == "stopped"
    assert session.forwards <= 3
    assert run.trace.rounds == []


def test_a_listener_that_raises_does_not_touch_the_run(settings, answer, caplog):
    def broken():
        raise RuntimeError("a picture is broken")

    run = LiveRun(settings, listener=broken)
    with caplog.at_level(logging.ERROR):
        run.step()
        run.pause()
        run.start()
        assert run.wait(SOON_S)
    assert (run.state, run.error) == ("finished", None)
    assert run.trace.new_tokens == answer
    assert "listener of a live run failed" in caplog.text


def test_a_failing_method_is_a_failed_run(settings, answer, monkeypatch):
    calls, real = [], ExactMatch.verify

    def verify(self, tree, p):
        calls.append(0)
        if len(calls) == 3:
            raise ArithmeticError("the script says so")
        return real(self, tree, p)

    with monkeypatch.context() as patch:
        patch.setattr(ExactMatch, "verify", verify)
        run = LiveRun(settings)
        run.start()
        assert run.wait(SOON_S)
    assert run.state == "failed"
    assert run.error.startswith("ArithmeticError: the script says so")
    assert len(run.trace.rounds) == 2, "what was generated before is kept"
    run.start()
    assert run.state == "failed"
    again = LiveRun(settings)
    again.start()
    assert again.wait(SOON_S)
    assert again.trace.new_tokens == answer


def test_a_failing_drafter_says_what_happened(settings, monkeypatch):
    script = Scripted((1, 2, 3), (1,), fail_at=1)
    run = LiveRun(settings)
    run._run.decoding.drafter = script
    run.start()
    assert run.wait(SOON_S)
    assert run.state == "failed"
    assert "the script says so" in run.error
    assert len(run.trace.rounds) == 1


def test_a_users_mistake_is_told_without_a_traceback(settings):
    run = LiveRun(settings.change(verifier="rejection"))
    run.start()
    assert run.wait(SOON_S)
    assert run.state == "failed"
    assert "takes one chain" in run.error
    assert "bug" not in run.error


def test_snapshots_are_consistent_while_it_runs(settings):
    run = LiveRun(settings.change(max_new_tokens=120))
    found: list[Trace] = []
    done = threading.Event()

    def look():
        while not done.is_set():
            found.append(run.trace)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    run.start()
    ended = run.wait(SOON_S)
    done.set()
    for watcher in watchers:
        watcher.join()
    assert ended
    last = run.trace.new_tokens
    assert len({len(trace.rounds) for trace in found}) > 3, "no snapshot from the middle"
    for trace in found:
        start = len(trace.prompt_tokens)
        for index, round_ in enumerate(trace.rounds):
            assert (round_.index, round_.start) == (index, start)
            start += len(round_.emitted)
        assert trace.new_tokens == last[: len(trace.new_tokens)]
        assert {*trace.prompt_tokens, *trace.new_tokens} <= trace.pieces.keys()
        assert trace.finish == "" or trace.new_tokens == last, "it ended before its last round"


def test_a_trace_ends_only_with_its_last_round(settings, answer, monkeypatch):
    """Looked at while the last round is being written, the run is not over yet."""
    run, found, real = LiveRun(settings), [], decode_module.record_round

    def record(*args):
        found.append((run._run.decoding.finish, run.trace.finish))
        return real(*args)

    monkeypatch.setattr(decode_module, "record_round", record)
    run.start()
    assert run.wait(SOON_S)
    assert found[-1] == ("length", "")
    assert run.trace.finish == "length"


def test_buttons_from_many_threads(settings, answer):
    """Four impatient people: whatever they press, the text is a beginning of the right one."""
    run = LiveRun(settings)
    buttons = [run.start, run.pause, run.step, run.pause]

    def press(offset: int) -> None:
        for index in range(30):
            buttons[(index + offset) % 4]()
            time.sleep(0.0005)

    people = [threading.Thread(target=press, args=(offset,)) for offset in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    run.start()
    assert run.wait(SOON_S)
    assert run.state == "finished"
    assert run.trace.new_tokens == answer


@pytest.mark.parametrize("delay_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
def test_a_stop_at_some_moment(settings, answer, delay_s):
    run = LiveRun(settings.change(max_new_tokens=200))
    run.start()
    time.sleep(delay_s)
    run.stop(SOON_S)
    assert run.state in ("stopped", "finished")
    kept = run.trace.new_tokens[:COUNT]
    assert kept == answer[: len(kept)]
