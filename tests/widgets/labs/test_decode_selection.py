"""The decode lab's controller: knobs, selection, saved runs, loading ahead. No browser here."""

from __future__ import annotations

import threading

import pytest
from lab_script import LONG_S, until

from widgets.labs.decode.controller import DecodeController
from workbench.core.errors import BadInput, BadKnob, UnknownMethod


@pytest.fixture
def lab(decode_lab):
    return decode_lab


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
    assert controller.wait(LONG_S)
    view = controller.view()
    assert "no such folder" in view.errors["model"] and view.trace is trace


def test_start_need_not_wait_until_the_model_was_loaded_ahead(script, trace):
    gate = threading.Event()
    controller = DecodeController("t", "d", "hi", tools=script.slow_engine(gate))
    controller.warm()
    assert controller.state == "loading" and "start" in controller.view().verbs
    controller.start()
    assert "start" not in controller.view().verbs
    gate.set()
    assert controller.wait(LONG_S) and controller.state == "finished"


def test_warming_keeps_the_recorded_run_on_the_screen(lab, script, trace):
    controller = lab(trace=trace)
    controller.warm()
    assert controller.wait(LONG_S)
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
