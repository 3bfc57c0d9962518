"""The verifier lab's controller: laws, rules, audits, undo, and the numbers of its figures."""

from __future__ import annotations

import threading

import msgspec
import pytest
from lab_script import make_trace

from widgets.labs.board import Changes
from widgets.labs.board_lab import BoardLab
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.verifier.compared import compared
from widgets.labs.verifier.controller import VerifierLab
from widgets.labs.verifier.laws import laws_of_round
from workbench.bench.audit import KEEP, REFILL
from workbench.core.errors import BadInput
from workbench.core.method import methods

P, Q = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]


def test_every_registered_rule_is_shown_with_its_number():
    lab = VerifierLab(p=P, q=Q)
    lab.change("siblings", 1)
    figure = lab.contents()["rules"]
    bars = dict(zip(figure["data"][0]["customdata"], figure["data"][0]["x"], strict=True))
    assert set(bars) == {card.name for card in methods("verifier")}
    assert bars["rejection"] == pytest.approx(0.5) == pytest.approx(bars["multi_round"])
    assert figure["layout"]["shapes"][0]["x0"] == pytest.approx(0.5)
    assert bars["exact_match"] == pytest.approx(sum(a * b for a, b in zip(P, Q, strict=True)))


def test_a_dragged_bar_rescales_the_others_and_is_one_step_back():
    lab = VerifierLab(p=P, q=Q)
    for value in (0.55, 0.6, 0.8):
        lab.handle("laws", {"kind": "bar", "law": "p", "index": 0, "value": value})
    assert lab.settings["p"] == pytest.approx((0.8, 0.12, 0.08))
    lab.undo()
    assert lab.settings["p"] == pytest.approx(P)
    lab.redo()
    lab.handle("laws", {"kind": "bar", "law": "p", "index": 0, "value": 1.0})
    assert lab.settings["p"] == (1.0, 0.0, 0.0)
    lab.handle("laws", {"kind": "bar", "law": "p", "index": 0, "value": 0.4})
    assert lab.settings["p"] == pytest.approx((0.4, 0.3, 0.3)), "nothing to keep in proportion"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"kind": "bar"},
        {"kind": "bar", "law": "r", "index": 0, "value": 0.5},
        {"kind": "bar", "law": "p", "index": 9, "value": 0.5},
        {"kind": "bar", "law": "p", "index": 0, "value": 7},
        {"kind": "bar", "law": "p", "index": 0, "value": "high"},
        {"kind": "point", "customdata": "no_such_rule"},
    ],
)
def test_events_that_are_not_ours_change_nothing(event):
    lab = VerifierLab(p=P, q=Q)
    before = dict(lab.settings)
    lab.handle("laws", event)
    lab.handle("rules", event)
    assert dict(lab.settings) == before


def test_a_click_on_a_rule_chooses_it_and_its_audit_names_the_fault():
    lab = VerifierLab(p=P, q=Q)
    lab.handle("rules", {"kind": "point", "customdata": "rsd"})
    assert lab.settings["rule"] == "rsd" and lab.audit().exact
    lab.change("rule", "resamples_from_target")
    assert lab.audit().broken == REFILL and "draws from p again" in lab.audit().reading
    assert "BROKEN" in lab.contents()["audit"] and "off p" in str(lab.contents()["emits"]["layout"])
    lab.change("rule", "sorts_siblings")
    assert lab.audit().broken in (KEEP, REFILL)


def test_saboteurs_are_shown_on_request():
    lab = VerifierLab(p=P, q=Q)
    assert "shrinks_rho" not in lab.contents()["rules"]["data"][0]["customdata"]
    lab.change("saboteurs", True)
    assert "shrinks_rho" in lab.contents()["rules"]["data"][0]["customdata"]


def test_a_recorded_run_gives_its_laws():
    trace = make_trace(3)
    lab = VerifierLab(trace)
    labels, p, q = laws_of_round(trace, trace.rounds[0])
    assert lab.settings["p"] == p and lab.settings["labels"] == labels
    assert sum(p) == pytest.approx(1) == pytest.approx(sum(q))
    lab.change("round", 3)
    assert lab.settings["round"] == 3
    assert "round 3 of a run of scripted:target" in lab.contents()["head"]
    lab.handle("laws", {"kind": "bar", "law": "p", "index": 0, "value": 0.9})
    assert "laws of your own" in lab.contents()["head"], "edited laws are no longer the round's"


def test_the_recorded_run_gives_laws_without_a_file_and_undo_gives_the_old_ones_back():
    lab = VerifierLab(p=P, q=Q)
    assert "take_recorded" in lab.verbs()
    lab.take_recorded()
    kept = recorded_trace()
    assert kept is not None and "take_recorded" not in lab.verbs()
    place = lab.settings["round"]
    assert lab.settings["p"] == laws_of_round(kept, kept.rounds[place - 1])[1]
    fields = {field.key for section in lab.sections for field in section.fields}
    assert "round" in fields <= set(lab.settings)
    lab.undo()
    assert lab.settings["p"] == pytest.approx(P) and fields <= set(lab.settings)
    assert "laws of your own" in lab.contents()["head"]


def test_each_rule_sees_the_drafts_that_it_is_made_for():
    lab = VerifierLab(p=P, q=Q)
    found = {rule.outcome.name: rule for rule in lab.outcomes()}
    assert not any(rule.outcome.refusal for rule in found.values())
    assert found["rsd"].sampler == "without_replacement" and found["rsd"].siblings == 2
    assert found["mdsd_optimal"].sampler == "top_plus_one"
    assert found["block"].siblings == found["rejection"].siblings == 1
    assert all(
        rule.outcome.accepted <= rule.optimum + 1e-9
        for rule in found.values()
        if rule.outcome.lossless
    )
    assert found["mdsd_optimal"].outcome.accepted == pytest.approx(found["mdsd_optimal"].optimum)
    lines = lab.contents()["rules"]["layout"]["shapes"]
    assert len(lines) == len(found), "each bar has its own bound"
    verifiers = [card.make() for card in methods("verifier")]
    refused = compared(P, Q, 2, "independent", verifiers)
    assert {r.outcome.name for r in refused if r.outcome.refusal} >= {"rsd", "block", "rejection"}


def test_a_drag_does_not_wait_for_the_audit():
    lab, heard = VerifierLab(p=P, q=Q), threading.Event()
    first = lab.contents()["audit"]
    lab.listen(heard.set)
    lab.handle("laws", {"kind": "bar", "law": "p", "index": 0, "value": 0.8})
    heard.clear()
    assert "being enumerated" in lab.contents()["audit"] and "being enumerated" not in first
    assert heard.wait(60), "nobody is told that the audit is there"
    assert "being enumerated" not in lab.contents()["audit"]
    lab.close()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(p=[0.5, 0.5], q=[1.0]), "2 and q 1"),
        (dict(p=[1.0], q=[1.0]), "give 2 to 5"),
        (dict(p=[0.1] * 6, q=[0.1] * 6), "give 2 to 5"),
        (dict(p=[0.5, -0.5], q=[0.5, 0.5]), "none below 0"),
        (dict(p=[0.0, 0.0], q=[0.5, 0.5]), "above 0"),
    ],
)
def test_laws_that_are_none_are_refused(values, says):
    with pytest.raises(BadInput, match=says):
        VerifierLab(**values)


def test_chosen_drafts_and_foreign_files_are_messages(tmp_path):
    lab = VerifierLab(p=P, q=Q)
    assert not lab.open(b"{}", "foreign.json")
    assert "foreign.json" in lab.contents()["error"]
    assert lab.open(make_trace(2).to_json(), "run.json") and lab.contents()["error"] == ""
    kept = make_trace(1)
    rounds = [msgspec.structs.replace(done, q_node=None, q_top=[]) for done in kept.rounds]
    chosen = kept.with_(rounds=rounds)
    assert not lab.open(chosen.to_json(), "greedy.json")
    assert "no drawn drafts" in lab.contents()["error"]
    assert not lab.change("siblings", 99) and "siblings" in lab.contents()["error"]


def test_an_audit_of_a_run_goes_on_in_the_background_and_can_be_stopped():
    lab, heard = VerifierLab(p=P, q=Q), threading.Event()
    lab.listen(heard.set)
    lab.change("draws", 20)
    lab.audit_run()
    assert lab.verbs() >= {"stop"} and "audit_run" not in lab.verbs()
    assert lab.live.wait(120) and heard.is_set()
    assert lab.live.found is not None and lab.live.found.exact, lab.live.error
    assert "Audit of a run: draft_model with multi_round" in lab.contents()["audit"]
    lab.change("draws", 400)
    lab.audit_run()
    lab.stop()
    assert lab.live.wait(60) and "stopped" in lab.contents()["audit"]


def test_only_what_changed_is_drawn_again():
    lab, changes = VerifierLab(p=P, q=Q), Changes()
    assert set(dict(changes.of(lab.contents()))) >= {"laws", "rules", "emits", "audit", "head"}
    assert dict(changes.of(lab.contents())) == {}
    lab.change("rule", "exact_match")
    assert set(dict(changes.of(lab.contents()))) == {"rules", "emits", "audit"}
    lab.close()


def test_a_notebook_shows_widgets_and_a_page_without_a_kernel_shows_text():
    lab = BoardLab(VerifierLab(p=P, q=Q))
    try:
        bundle, _ = lab._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert "Every rule holds" in bundle["text/html"]
        assert lab.set("rule", "rsd") and not lab.set("rule", "nonsense")
    finally:
        lab.close()
