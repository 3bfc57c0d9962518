"""The what-if lab's controller: forms, answers, clicks, files, undo. No browser here."""

from __future__ import annotations

import pytest
from lab_script import make_trace

from widgets.labs.board_lab import BoardLab
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.what_if.controller import WhatIfLab, cut_round
from workbench.core.errors import BadInput
from workbench.engine.what_if import Change, what_if


def test_it_opens_on_a_recorded_run_and_says_that_nothing_is_changed():
    lab = WhatIfLab()
    assert lab.changed() == Change()
    shown = lab.contents()
    assert (
        "run as it was recorded" in shown["facts"]
        and "Nothing: all of it follows" in shown["facts"]
    )
    assert shown["tree"]["round_count"] == len(recorded_trace().rounds)


def test_the_numbers_shown_are_the_replays():
    lab = WhatIfLab(make_trace(4))
    assert lab.change("verifier", "exact_match") and lab.change("depth", 2)
    wanted = what_if(lab.trace, Change("exact_match", depth=2))
    assert lab.replay().bounds == wanted.bounds
    figure = lab.contents()["rounds"]
    assert figure["data"][0]["y"] == [one.recorded for one in wanted.rounds]
    middle = [(one.low + one.high) / 2 for one in wanted.rounds]
    assert figure["data"][1]["y"] == pytest.approx(middle)
    assert f"{wanted.bounds[0]:.2f}" in lab.contents()["facts"]


def test_a_cut_round_is_a_round_with_the_new_chances():
    trace = make_trace(1)
    one = what_if(trace, Change("multi_round", width=1)).rounds[0]
    cut = cut_round(trace.rounds[0], one)
    assert cut.tokens == [5, 6, 1] and cut.parent == [-1, 0, 1] and cut.path == [0]
    assert cut.accept == pytest.approx([(low + high) / 2 for low, high in one.accept])
    assert cut_round(trace.rounds[0], what_if(trace, Change(nodes=0)).rounds[0]).tokens == []


def test_clicks_choose_rounds_and_nodes():
    lab = WhatIfLab(make_trace(3))
    lab.handle("rounds", {"kind": "point", "customdata": 2})
    assert lab.place == 2 and lab.contents()["tree"]["data"]["round"] == 2
    lab.handle("tree", {"kind": "node", "round": 2, "node": 1})
    assert "“y” recorded" in lab.contents()["facts"]
    lab.handle("tree", {"kind": "round", "round": 0})
    assert lab.place == 0 and "“y” recorded" not in lab.contents()["facts"]
    for event in ({}, {"kind": "point", "customdata": 99}, {"kind": "node", "round": "x"}):
        lab.handle("tree", event)
    assert lab.place == 0


def test_what_is_refused_is_a_message_and_undo_goes_back():
    lab = WhatIfLab(make_trace(3))
    assert not lab.change("verifier", "no_such") and "no_such" in lab.contents()["error"]
    assert not lab.change("colour", 1)
    lab.change("verifier", "block")
    assert (
        "one chain" in lab.contents()["facts"] and "does not hold what" in lab.contents()["facts"]
    )
    whole = sum(done.expected_emitted for done in lab.trace.rounds) / len(lab.trace.rounds)
    assert f"<td>tokens a round, recorded</td><td>{whole:.2f}</td>" in lab.contents()["facts"]
    lab.change("width", 1)
    assert "width of 1" not in lab.contents()["facts"]
    lab.undo()
    lab.undo()
    assert lab.changed() == Change() and lab.contents()["error"] == ""
    lab.redo()
    assert lab.settings["verifier"] == "block"
    lab.reset()
    assert lab.changed() == Change()


def test_files_open_or_say_what_they_are():
    lab = WhatIfLab(make_trace(3))
    assert not lab.open(b"[]", "foreign.json") and "foreign.json" in lab.contents()["error"]
    assert len(lab.trace.rounds) == 3
    assert not lab.open(make_trace(0).to_json(), "empty.json")
    assert "no round" in lab.contents()["error"]
    assert lab.open(make_trace(5).to_json(), "run.json") and len(lab.trace.rounds) == 5
    with pytest.raises(BadInput, match="no round"):
        WhatIfLab(make_trace(0))


def test_a_notebook_shows_widgets_and_a_page_without_a_kernel_shows_text():
    lab = BoardLab(WhatIfLab(make_trace(2)))
    try:
        bundle, _ = lab._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert "as it was recorded" in bundle["text/html"]
    finally:
        lab.close()
