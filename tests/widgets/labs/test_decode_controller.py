"""The decode lab's controller: verbs, errors in their block, selection, undo. No browser here."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.job import block_named
from workbench.core.errors import BadInput, BadKnob, UnknownMethod


@pytest.fixture
def lab(script):
    made = []

    def make(**values):
        values = {"prompt": "def f(x", **values}
        made.append(DecodeController("t", "d", tools=script.engine(), **values))
        return made[-1]

    yield make
    for controller in made:
        controller.close()
        assert controller.wait(5)


def until(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the lab did not get there in time"
        time.sleep(0.005)


def test_importing_the_controller_imports_no_ui_library():
    code = (
        "import sys, widgets.labs.decode.controller;"
        "bad = {'panel', 'bokeh', 'ipywidgets', 'plotly', 'anywidget'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_start_runs_to_the_end_and_measures_the_baseline_once_per_prompt(lab, script):
    controller = lab()
    for _ in range(2):
        controller.start()
        assert controller.wait(5)
        view = controller.view()
        assert (view.state, view.fraction) == ("finished", 1.0)
        assert len(view.trace.rounds) == 6 and view.trace.baseline.ms_per_token == 4.0
    assert script.baselines == 1
    controller.change("prompt", "def g(y")
    controller.change("temperature", 0.5)
    controller.start()
    assert controller.wait(5) and script.baselines == 2


def test_start_returns_at_once_and_listeners_hear_every_round(lab, script):
    script.gap_s = 0.05
    controller, heard = lab(), []
    controller.listen(lambda: heard.append(threading.current_thread()))
    begun = time.monotonic()
    controller.start()
    assert time.monotonic() - begun < 0.04
    assert controller.wait(5)
    assert len(heard) >= script.total and threading.main_thread() is not heard[-1]


def test_after_a_run_the_last_round_that_drafted_something_is_selected(lab, script):
    script.total, controller = 3, lab()
    controller.step()
    until(lambda: controller.state == "paused")
    controller.step()
    until(lambda: len(controller.trace.rounds) == 2 and controller.state == "paused")
    assert controller.view().selection.round == 1, "a step shows its round"
    controller.start()
    assert controller.wait(5)
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
    assert controller.wait(5)
    view = controller.view()
    assert view.state == "stopped" and len(view.trace.rounds) >= kept
    assert view.trace.baseline is None and 0 < view.fraction < 1


def test_stop_before_the_model_is_loaded(lab, script):
    gate = threading.Event()
    tools = script.engine()
    slow = tools.__class__(
        lambda name: (gate.wait(5), tools.load(name))[1],
        tools.run,
        tools.settings,
        tools.baseline,
        tools.laws,
    )
    controller = DecodeController("t", "d", "hi", tools=slow)
    controller.start()
    assert controller.state == "loading" and "Loading t" in controller.view().line
    controller.stop()
    gate.set()
    assert controller.wait(5)
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
    assert controller.wait(5)
    shown = controller.trace
    controller.change(*change)
    controller.start()
    assert controller.wait(5)
    view = controller.view()
    assert view.state == "failed" and list(view.errors) == [block] and says in view.errors[block]
    assert view.trace is shown, "the last run stays on the screen"
    controller.undo()
    assert controller.view().errors == {}
    controller.start()
    assert controller.wait(5) and controller.state == "finished"


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
    assert controller.wait(5)
    view = controller.view()
    assert view.state == "failed" and "layer 3" in view.errors["run"]
    assert len(view.trace.rounds) == 2
    script.fail_at = None
    controller.start()
    assert controller.wait(5) and controller.state == "finished"


def test_a_baseline_that_fails_does_not_take_the_run_with_it(lab, script):
    script.baseline_error = "out of memory"
    controller = lab()
    controller.start()
    assert controller.wait(5)
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
    assert controller.wait(5)
    assert [asked["max_new_tokens"] for asked in script.asked] == [9]
    controller.start()
    controller.stop()
    assert controller.wait(5)
    assert [asked["max_new_tokens"] for asked in script.asked] == [9, 11]


def test_undo_redo_and_reset_of_knobs(lab):
    controller = lab()
    first = dict(controller.view().settings)
    version = controller.view().form_version
    controller.change("drafter", "token_recycling", from_form=True)
    controller.change("drafter.token_recycling.k", 3, from_form=True)
    assert controller.view().form_version == version, "the form itself knows what it said"
    controller.undo()
    assert controller.view().settings["drafter.token_recycling.k"] == 8
    controller.undo()
    assert dict(controller.view().settings) == first
    assert controller.view().verbs & {"undo", "redo"} == {"redo"}
    controller.redo()
    assert controller.view().settings["drafter"] == "token_recycling"
    controller.reset()
    assert dict(controller.view().settings) == first
    controller.undo()
    assert controller.view().settings["drafter"] == "token_recycling"


def test_the_selection_follows_the_run_until_something_is_clicked(lab, script):
    script.total, script.gap_s = 400, 0.005
    controller = lab()
    controller.start()
    until(lambda: controller.trace is not None and len(controller.trace.rounds) > 3)
    assert controller.view().selection.round >= 3
    controller.select_token(1, 1)
    until(lambda: len(controller.trace.rounds) > 8)
    assert controller.view().selection == (1, 0, 1), "the extra token shows the row it came after"


def test_events_of_the_views_select_everywhere(lab, trace):
    controller = lab(trace=trace)
    for event, wanted in [
        ({"kind": "node", "round": 2, "node": 0}, (2, 0, 0)),
        ({"kind": "node", "round": 2, "node": 4}, (2, 4, None)),
        ({"kind": "node", "round": 2, "node": -1}, (2, -1, None)),
        ({"kind": "token", "round": 1, "node": 0, "index": 1}, (1, 0, 1)),
        ({"kind": "round", "round": 0}, (0, 2, None)),
        ({"kind": "point", "figure": "acceptance_map", "customdata": [1, 2]}, (1, 2, None)),
        ({"kind": "node", "round": 99, "node": 0}, (1, 2, None)),
        ({"kind": "point", "figure": "accepted_length", "customdata": None}, (1, 2, None)),
        ({"kind": "nonsense"}, (1, 2, None)),
    ]:
        controller.handle(event)
        assert controller.view().selection == wanted, event


def test_a_saved_trace_opens_without_any_model(lab, script, trace):
    controller = lab()
    assert controller.open(trace.to_json(), "run.json")
    view = controller.view()
    assert view.trace == trace and script.loaded == []
    assert view.settings["drafter.draft_model.siblings"] == 2 and view.settings["seed"] == 3
    controller.undo()
    assert controller.view().settings["seed"] == 0


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04pickle", b'{"schema": 99}', b"[" * 5000])
def test_a_foreign_file_is_an_error_beside_the_button(lab, trace, data):
    controller = lab(trace=trace)
    assert not controller.open(data, "foreign.json")
    view = controller.view()
    assert "foreign.json" in view.errors["trace"] and view.trace is trace
    assert controller.open(trace.to_json(), "run.json") and controller.view().errors == {}


def test_opening_during_a_run_is_refused_and_says_what_to_do(lab, script, trace):
    script.total = 400
    controller = lab()
    controller.start()
    until(lambda: controller.state == "running")
    controller.open(trace.to_json(), "run.json")
    assert "press Stop" in controller.view().errors["trace"]
    assert controller.state == "running"


def test_a_model_that_cannot_be_loaded_shows_before_the_first_start(lab, script, trace):
    controller = DecodeController("missing/model", "d", "hi", trace=trace, tools=script.engine())
    controller.warm()
    assert controller.wait(5)
    view = controller.view()
    assert "no such folder" in view.errors["model"] and view.trace is trace


def test_start_need_not_wait_until_the_model_was_loaded_ahead(script, trace):
    gate, tools = threading.Event(), script.engine()
    slow = tools.__class__(
        lambda name: (gate.wait(5), tools.load(name))[1],
        tools.run,
        tools.settings,
        tools.baseline,
        tools.laws,
    )
    controller = DecodeController("t", "d", "hi", tools=slow)
    controller.warm()
    assert controller.state == "loading" and "start" in controller.view().verbs
    controller.start()
    assert "start" not in controller.view().verbs
    gate.set()
    assert controller.wait(5) and controller.state == "finished"


def test_warming_keeps_the_recorded_run_on_the_screen(lab, script, trace):
    controller = lab(trace=trace)
    controller.warm()
    assert controller.wait(5)
    view = controller.view()
    assert view.state == "idle" and view.trace is trace and "10.4 M" in view.model_line


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"drafter": "prompt_lokup"}, UnknownMethod, "prompt_lookup"),
        ({"drafter.sibblings": 2}, BadInput, "no such setting"),
        ({"temperatur": 1.0}, BadInput, "temperature"),
        ({"drafter.siblings": 99}, BadKnob, "[1, 16]"),
        ({"max_new_tokens": 0}, BadKnob, "max_new_tokens=0"),
    ],
)
def test_the_constructor_names_the_mistake(given, error, says, script):
    with pytest.raises(error, match=None) as caught:
        DecodeController("t", "d", "hi", tools=script.engine(), **given)
    assert says in str(caught.value)


def test_a_method_instance_brings_its_knobs(lab):
    from workbench.core.method import make_method

    controller = lab(drafter=make_method("drafter", "token_recycling", k=5))
    assert controller.view().settings["drafter.token_recycling.k"] == 5


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
    assert controller.wait(5) and not errors
    controller.start()
    assert controller.wait(5) and controller.state == "finished"
