"""The arena in trouble and in company: bad input, a failing cell, a full disk, others measuring."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from time import sleep

import pytest
from lab_script import SMALL_ARENA as SMALL

from widgets.labs.arena import forecast, judged
from widgets.labs.board import Changes
from workbench.bench import measurement
from workbench.bench.turn import Turn


def test_a_path_that_is_not_there_is_named(make, tmp_path):
    lab = make(prompts="file", path=str(tmp_path / "none.jsonl"))
    assert "none.jsonl" in lab.contents()["error"] and 'role="alert"' in lab.contents()["error"]
    lab.start()
    assert "none.jsonl" in lab.error and lab.arena is None
    assert lab.change("prompts", "zoo:code") and "alert" not in lab.contents()["error"]


def test_one_configuration_fails_half_way_and_the_others_go_on(make, monkeypatch):
    measured_whole = measurement.measure

    def breaks(cell, setting, prompt, repeat, place, carried=None):
        if cell.drafter.name == "rest" and repeat == 1:
            raise RuntimeError("no room for <this>")
        return measured_whole(cell, setting, prompt, repeat, place, carried)

    monkeypatch.setattr(measurement, "measure", breaks)
    lab = make(drafters=("prompt_lookup", "rest"))
    lab.start()
    assert lab.wait(60) and lab.arena.state == "finished" and not lab.error
    assert "6 of 6 measured, 1 failed" in lab.contents()["error"]
    table = lab.contents()["table"]
    assert "failed 1 times" in table and "RuntimeError: no room for &lt;this&gt;" in table
    rows = {row["label"].partition(",")[0]: row for row in lab.results.table}
    assert rows["prompt_lookup"]["measurements"] == 2 and rows["rest"]["measurements"] == 1


def test_a_full_disk_ends_the_sweep_and_start_goes_on_from_there(make, monkeypatch):
    real, left = os.fsync, iter([True] * 4)  # the manifest and some measurements

    def full(file):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    lab = make(repeats=4)
    with monkeypatch.context() as patch:
        patch.setattr("workbench.bench.journal.os.fsync", full)
        lab.start()
        assert lab.wait(60) and lab.arena.state == "failed"
    assert "No space left" in lab.error and "Free some room" in lab.error
    kept = lab.results.done
    assert 0 < kept < 8 and "start" in lab.verbs()
    lab.start()
    assert lab.wait(60) and not lab.error and lab.results.done == 8
    assert len([r for r in lab.arena.sweep.records if r["state"] == "done"]) == 8, "lost or doubled"


def test_another_measurement_is_waited_for_and_the_wait_can_be_stopped(make):
    first = Turn("the sweep in runs/first")
    assert first.taken()
    for show in ("arena", "cost", "tune"):
        lab = make(show=show, **{**SMALL, "new_tokens": 8})
        said = threading.Event()
        lab.listen(lambda lab=lab, said=said: said.set() if lab.waiting else None)
        lab.start()
        assert said.wait(30), show
        assert "waiting for the sweep in runs/first" in lab.contents()["error"]
        assert "Waiting for its turn" in lab.contents()["progress"] and "stop" in lab.verbs()
        lab.stop()
        assert lab.wait(10) and not lab.error and not lab.waiting, show
    assert first.taken(), "it was never given back"
    first.leave()


def test_a_second_lab_goes_on_when_the_first_has_ended(make, tmp_path):
    one, two = make(repeats=6), make(folder=str(tmp_path / "second"))
    waited = []
    two.listen(lambda: waited.append(two.waiting))
    one.start()
    two.start()
    assert one.wait(60) and two.wait(60)
    assert one.results.done == 12 and two.results.done == 4
    assert any("sweep in" in holder for holder in waited) and not two.waiting


def test_a_cost_run_is_explained_and_a_disturbed_curve_is_doubted(make):
    lab = make(show="cost", **{**SMALL, "new_tokens": 8, "cost_repeats": 1})
    lab.start()
    assert lab.wait(90) and not lab.error and lab.report is not None
    shown = lab.contents()
    assert len(lab.report.rows) == 5 and shown["table"].count("<tr") == 6
    assert "recorded" not in shown["detail"] and "What these numbers are" in shown["table"]
    assert len(shown["left"]["data"]) > 1 and "export" in lab.verbs()
    # Far more than another process beside this one does to either of the two measurements.
    slow = [[100 * ms for ms in line] for line in lab.report.cost.verify.ms]
    verify = replace(lab.report.cost.verify, ms=tuple(map(tuple, slow)))
    wrong = replace(lab.report, cost=replace(lab.report.cost, verify=verify))
    assert "something else ran" in forecast.doubt(wrong)
    assert lab.change("show", "elsewhere")
    assert "measured under Cost" in lab.contents()["detail"]


def test_too_few_tokens_for_a_cost_run_are_refused_before_a_model_is_loaded(make):
    lab = make(show="cost")
    assert "new tokens=6" in lab.contents()["error"] and "7 or more" in lab.contents()["error"]
    lab.start()
    assert "7 or more" in lab.error and not lab.worker.running("cost")


def test_a_tuned_preset_is_opened_again_here_without_a_warning(make, tmp_path):
    tune = {"trials": 2, "finalists": 1, "tune_folder": str(tmp_path / "tune")}
    lab = make(show="tune", **{**SMALL, **tune})
    lab.start()
    assert lab.wait(60) and not lab.error
    saved = (tmp_path / "tune" / "preset.json").read_bytes()
    other = make(drafters=("rest",))
    assert other.open(saved, "preset.json") and not other.warning
    assert lab.preset.cell.label in other.contents()["detail"]
    assert "--drafter prompt_lookup" in other.contents()["detail"], "how to tune it anew"
    other.change("show", "arena")
    other.start()
    assert other.wait(60) and not other.error
    assert other.results.row(lab.preset.cell.id)["measurements"] == 2


ROW = {"target": "t", "temperature": 0.0, "cell": "", "lossless": True, "ratio_interval": (1, 1)}
PLAIN = {**ROW, "cell": "p", "label": "plain", "ratio": 1.0}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1.1, 1.4, "Fastest without"), (0.9, 1.2, "No lossless draft is shown"),
     (0.6, 0.9, "Decode plainly")],
)  # fmt: skip
def test_the_verdict_is_said_in_words(low, high, said):
    ratio = (low + high) / 2
    draft = {**ROW, "cell": "a", "label": "a", "ratio": ratio, "ratio_interval": (low, high)}
    lossy = {**draft, "cell": "b", "label": "b", "ratio": 2.0, "lossless": False}
    assert said in judged.verdict([PLAIN, draft]) and "Lossy" not in judged.verdict([draft])
    assert "Lossy and faster" in judged.verdict([PLAIN, draft, lossy])
    assert judged.leading([PLAIN, draft, lossy]) == "a", "a lossy rule is not what is shown first"
    assert judged.verdict([PLAIN]) == "" and judged.leading([PLAIN]) == "p"
    where = judged.verdict([draft, {**draft, "temperature": 1.0}], "recorded example")
    assert "Recorded example, t at temperature 1:" in where


def test_what_failed_to_be_drawn_is_drawn_the_next_time():
    changes, contents = Changes(), {"first": 1, "second": 2, "third": 3}
    with pytest.raises(RuntimeError):
        for name, _ in changes.of(contents):
            if name == "second":
                raise RuntimeError("a figure that cannot be drawn")
    assert dict(changes.of(contents)) == {"second": 2, "third": 3}
    assert dict(changes.of(contents)) == {}


def test_a_paused_search_lets_others_measure_and_waits_when_it_goes_on(make):
    lab = make(show="tune", **{**SMALL, "trials": 60})
    paused, other = [], Turn("another one")

    def once():
        if lab.trials and not paused:
            paused.append(True)
            lab.pause()

    lab.listen(once)
    lab.start()
    late = iter(range(200))
    while not paused:
        assert next(late, None) is not None, "no trial came to its end"
        sleep(0.1)
    assert other.wait(lambda who: None, lambda s: sleep(s) or next(late, None) is None)
    assert lab.status.state == "paused" and "paused" in lab.contents()["progress"]
    lab.start()
    while not lab.waiting:
        assert next(late, None) is not None, "it measures beside another"
        sleep(0.1)
    other.leave()
    lab.stop()
    assert lab.wait(20) and not lab.error and lab.trials, "Stop keeps the trials"
