"""Where the draft stands, in the decode lab: a field, a setting, and what it took in words."""

from __future__ import annotations

import msgspec
import pytest
from lab_script import LONG_S, make_round, make_trace

from widgets.controls.ipywidgets_form import Form as JupyterForm
from widgets.controls.panel_form import Form as PanelForm
from widgets.figures import time_split
from widgets.labs.decode import engine, settings
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.numbers import speed_html
from widgets.labs.decode.selection import of_node, of_round
from widgets.labs.decode.sentences import node_facts
from widgets.labs.decode.settings import SAME
from workbench.core.trace import Method, Trace

TOLD = {"transfer_ms": 0.25, "transfer_bytes": 24_600}


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setattr(settings, "device_names", lambda: ("cpu", "cuda:0"))


def shown(values) -> list[str]:
    return [field.key for section in settings.sections(values) for field in section.fields]


def test_one_device_has_no_field_and_two_have_one_where_a_model_drafts(decode_lab, monkeypatch):
    values = dict(decode_lab().view().settings)
    assert values["draft_device"] == SAME
    assert "draft" in shown(values) and "draft_device" not in shown(values)
    monkeypatch.setattr(settings, "device_names", lambda: ("cpu", "cuda:0"))
    keys = shown(values)
    assert keys.index("draft_device") == keys.index("draft") + 1
    assert settings.draft_place().knob.choices == (SAME, "cpu", "cuda:0")
    assert "draft_device" not in shown({**values, "drafter": "prompt_lookup"})


@pytest.mark.parametrize("host", [JupyterForm, PanelForm])
def test_both_hosts_draw_the_field(two_devices, host):
    moved = []
    form = host(lambda key, value: moved.append((key, value)))
    form.show([settings.draft_place()], {"draft_device": "cpu"})
    (row,) = form._rows
    assert row.control.value == "cpu"
    row.control.value = "cuda:0"
    assert moved == [("draft_device", "cuda:0")]


def test_the_draft_is_loaded_where_it_was_put_and_with_the_target_else(
    decode_lab, script, two_devices
):
    lab = decode_lab()
    for place in (SAME, "cuda:0", "cpu", "cuda:0", SAME):
        lab.change("draft_device", place)
        lab.start()
        assert lab.wait(LONG_S)
    placed = [asked["draft_model"].device for asked in script.asked]
    assert placed == ["cpu", "cuda:0", "cpu", "cuda:0", "cpu"]
    assert {asked["model"].device for asked in script.asked} == {"cpu"}
    assert script.loaded.count(("d", "cuda:0")) == script.loaded.count(("t", "cpu")) == 1


def test_it_is_undone_and_reset_and_refused_as_other_settings_are(decode_lab, two_devices):
    lab = decode_lab(draft_device="cuda:0")
    lab.change("draft_device", "cpu")
    lab.undo()
    assert lab.view().settings["draft_device"] == "cuda:0"
    lab.redo()
    assert not lab.change("draft_device", "cuda:7")
    view = lab.view()
    assert "draft_device='cuda:7'" in view.errors["drafter"] and "cuda:0" in view.errors["drafter"]
    assert view.settings["draft_device"] == "cpu"
    lab.reset()
    assert lab.view().settings["draft_device"] == "cuda:0"


@pytest.mark.parametrize(
    ("target", "draft", "found"),
    [("cuda:0", "cpu", "cpu"), ("cuda:0", "cuda:0", SAME), ("cpu", "", SAME), ("cpu", "tpu", SAME)],
)
def test_a_trace_brings_its_placement_where_this_machine_has_it(two_devices, target, draft, found):
    trace = make_trace(1, device=target, draft_device=draft)
    assert settings.settings_of(trace)["draft_device"] == found


def test_a_placed_trace_opens_on_a_machine_with_one_device(decode_lab):
    lab = decode_lab()
    lab.show(make_trace(2, device="cpu", draft_device="cuda:0"))
    assert lab.view().settings["draft_device"] == SAME
    old = make_trace(1).to_json().replace(b'"draft_device":"",', b"")
    assert b"draft_device" not in old
    assert lab.open(old, "old.json")
    assert lab.view().settings["draft_device"] == SAME


def test_models_that_were_handed_in_on_two_devices_stay_there(script, two_devices):
    target, draft = (script._load(*at) for at in (("t", "cuda:0"), ("d", "cpu")))
    lab = DecodeController(target, draft, "def f(x", tools=script.engine())
    assert lab.view().settings["draft_device"] == "cpu"
    script.loaded.clear()
    lab.start()
    assert lab.wait(LONG_S)
    assert script.asked[-1]["draft_model"] is draft
    assert script.loaded == []
    lab.change("draft_device", SAME)
    lab.start()
    assert lab.wait(LONG_S)
    assert script.asked[-1]["draft_model"].device == "cuda:0"
    assert script.loaded == [("d", "cuda:0")]
    lab.close()


def test_a_model_is_shared_by_name_and_device(monkeypatch):
    from workbench.models import load

    made = []
    monkeypatch.setattr(load, "load", lambda name, device: made.append((name, device)) or [name])
    monkeypatch.setattr(engine, "_MODELS", {})
    one, other = engine.shared_model("m"), engine.shared_model("m", "cpu")
    assert one is other
    assert made == [("m", "cpu")]
    assert engine.shared_model("n") is not one


def crossed(rounds: int, told: dict) -> Trace:
    trace = make_trace(rounds, drafter=Method("draft_model"), device="cuda:0", draft_device="cpu")
    return trace.with_(rounds=[msgspec.structs.replace(r, report=told) for r in trace.rounds])


def test_the_time_of_a_round_says_what_crossed_a_round_and_in_the_run():
    html = speed_html(crossed(4, TOLD), "finished").replace("\u00a0", " ")
    assert "of it between devices 0.25 ms, 24.6 kB a round · 1.00 ms, 98.4 kB in the run" in html
    assert "between devices" not in speed_html(crossed(4, {}), "finished")


def test_the_round_of_a_selected_node_says_what_crossed_in_it():
    trace = crossed(2, TOLD)
    facts = [node_facts(trace, of_node(trace, 1, 0)), node_facts(trace, of_round(trace, 0))]
    for found in facts:
        assert found.numbers[-1] == ("between devices, this round", "0.25 ms, 24.6 kB")
    here = crossed(2, {})
    assert not any("devices" in label for label, _ in node_facts(here, of_round(here, 0)).numbers)


def test_the_exported_picture_says_it_too():
    with_, without = (time_split.info(crossed(3, told)) for told in (TOLD, {}))
    assert "between devices 0.25 ms, 24.6 kB a round" in time_split.svg(with_)
    assert "between devices" in str(time_split.figure(with_)["layout"]["annotations"])
    assert "between devices" not in time_split.svg(without) + str(time_split.figure(without))
    assert time_split.rows(with_) == time_split.rows(without), "it is no part beside the others"
    assert make_round(0).transfer is None
