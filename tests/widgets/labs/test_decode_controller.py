"""The decode lab's controller: runs, their verbs, errors in their block. No browser here."""

from __future__ import annotations

import threading

import pytest
from lab_script import LONG_S, until

from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.job import block_named


@pytest.fixture
def lab(decode_lab):
    return decode_lab


def test_start_runs_to_the_end_and_measures_the_baseline_once_per_prompt(lab, script):
    controller = lab()
    for _ in range(2):
        controller.start()
        assert controller.wait(LONG_S)
        view = controller.view()
        assert (view.state, view.fraction) == ("finished", 1.0)
        assert len(view.trace.rounds) == 6 and view.trace.baseline.ms_per_token == 4.0
    assert script.baselines == 1
    controller.change("prompt", "def g(y")
    controller.change("temperature", 0.5)
    controller.start()
    assert controller.wait(LONG_S) and script.baselines == 2


def test_start_returns_at_once_and_listeners_hear_every_round(lab, script):
    controller, heard, returned, waited = lab(), [], threading.Event(), []
    script.before_round = lambda: waited.append(returned.wait(10))
    controller.listen(lambda: heard.append(threading.current_thread()))
    controller.start()
    returned.set()
    assert controller.wait(LONG_S)
    assert all(waited), "rounds were run before start() returned"
    assert len(heard) >= script.total and threading.main_thread() is not heard[-1]


def test_after_a_run_the_last_round_that_drafted_something_is_selected(lab, script):
    script.total, controller = 3, lab()
    controller.step()
    until(lambda: controller.state == "paused")
    controller.step()
    until(lambda: len(controller.trace.rounds) == 2 and controller.state == "paused")
    assert controller.view().selection.round == 1, "a step shows its round"
    controller.start()
    assert controller.wait(LONG_S)
    view = controller.view()
    assert not view.trace.rounds[2].tokens and view.selection.round == 1
    assert view.selection.node >= 0


def test_an_error_is_shown_in_the_block_that_has_the_knob_it_names():
    assert block_named("folder='/nowhere' is no folder", "prompt") == "drafter"
    assert block_named("temperature=-1: must be 0 or more", "prompt") == "verifier"
    assert block_named("depth=99: too deep", "prompt") == "policy"
    assert block_named("something else went wrong", "prompt") == "prompt"


def test_pause_step_start_and_stop(lab, script):
    script.total, script.gap_s = 500, 0.01
    controller = lab()
    controller.step()
    until(lambda: controller.state == "paused")
    assert len(controller.trace.rounds) == 1
    assert {"start", "step", "stop"} <= controller.view().verbs
    controller.step()
    until(lambda: len(controller.trace.rounds) == 2 and controller.state == "paused")
    controller.start()
    until(lambda: len(controller.trace.rounds) > 4)
    assert controller.view().verbs & {"start", "pause", "stop"} == {"pause", "stop"}
    controller.pause()
    until(lambda: controller.state == "paused")
    kept = len(controller.trace.rounds)
    controller.stop()
    assert controller.wait(LONG_S)
    view = controller.view()
    assert view.state == "stopped" and len(view.trace.rounds) >= kept
    assert view.trace.baseline is None and 0 < view.fraction < 1


def test_stop_before_the_model_is_loaded(lab, script):
    gate = threading.Event()
    controller = DecodeController("t", "d", "hi", tools=script.slow_engine(gate))
    controller.start()
    assert controller.state == "loading" and "Loading t" in controller.view().line
    controller.stop()
    gate.set()
    assert controller.wait(LONG_S)
    assert controller.state == "stopped" and controller.trace is None


@pytest.mark.parametrize(
    ("change", "block", "says"),
    [
        (("prompt", ""), "prompt", "is empty"),
        (("prompt", "   "), "prompt", "is empty"),
        (("prompt", "x" * 120), "prompt", "shorten"),
        (("draft", "missing/one"), "drafter", "no such folder"),
    ],
)
def test_an_error_at_the_start_lands_in_its_block_and_the_lab_goes_on(lab, change, block, says):
    controller = lab()
    controller.start()
    assert controller.wait(LONG_S)
    shown = controller.trace
    controller.change(*change)
    controller.start()
    assert controller.wait(LONG_S)
    view = controller.view()
    assert view.state == "failed" and list(view.errors) == [block] and says in view.errors[block]
    assert view.trace is shown, "the last run stays on the screen"
    controller.undo()
    assert controller.view().errors == {}
    controller.start()
    assert controller.wait(LONG_S) and controller.state == "finished"


@pytest.mark.parametrize(
    ("key", "value", "block"),
    [
        ("max_new_tokens", 0, "prompt"),
        ("drafter", "token_recyling", "drafter"),
        ("drafter.token_recycling.k", 10_000, "drafter"),
        ("policy.fixed.depth", "deep", "policy"),
        ("temperature", -1.0, "verifier"),
        ("no_such", 1, "prompt"),
    ],
)
def test_a_bad_value_is_refused_in_its_block_and_the_old_one_stays(lab, key, value, block):
    controller = lab()
    before = dict(controller.view().settings)
    assert controller.change(key, value) is False
    view = controller.view()
    assert dict(view.settings) == before and repr(value) in view.errors[block]
    good = {"prompt": ("max_new_tokens", 7), "drafter": ("drafter", "none")}
    good |= {"policy": ("policy.fixed.depth", 2), "verifier": ("temperature", 0.3)}
    assert controller.change(*good[block])
    assert controller.view().errors == {}


def test_a_failure_inside_the_run_keeps_the_text_and_names_the_layer(lab, script):
    script.fail_at = 2
    controller = lab()
    controller.start()
    assert controller.wait(LONG_S)
    view = controller.view()
    assert view.state == "failed" and "layer 3" in view.errors["run"]
    assert len(view.trace.rounds) == 2
    script.fail_at = None
    controller.start()
    assert controller.wait(LONG_S) and controller.state == "finished"


def test_a_baseline_that_fails_does_not_take_the_run_with_it(lab, script):
    script.baseline_error = "out of memory"
    controller = lab()
    controller.start()
    assert controller.wait(LONG_S)
    view = controller.view()
    assert view.state == "finished" and "out of memory" in view.errors["speed"]
    assert len(view.trace.rounds) == 6


def test_changes_during_a_run_wait_for_the_next_start(lab, script):
    script.total, script.gap_s = 300, 0.01
    controller = lab(max_new_tokens=9)
    controller.start()
    until(lambda: controller.state == "running")
    controller.change("max_new_tokens", 11)
    assert "next start" in controller.view().notice
    controller.start()  # while running: does nothing
    controller.stop()
    assert controller.wait(LONG_S)
    assert [asked["max_new_tokens"] for asked in script.asked] == [9]
    controller.start()
    controller.stop()
    assert controller.wait(LONG_S)
    assert [asked["max_new_tokens"] for asked in script.asked] == [9, 11]


def test_verbs_from_many_threads_leave_one_consistent_lab(lab, script):
    script.total, script.gap_s = 30, 0.001
    controller, errors = lab(), []

    def press(name):
        try:
            for _ in range(20):
                getattr(controller, name)()
                controller.view()
        except Exception as error:
            errors.append(error)

    names = ("start", "pause", "step", "stop", "undo", "redo")
    threads = [threading.Thread(target=press, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    controller.stop()
    assert controller.wait(LONG_S) and not errors
    controller.start()
    assert controller.wait(LONG_S) and controller.state == "finished"
