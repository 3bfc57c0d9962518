"""The arena's controller: plans, live results, folders, refusals, costs, predictions, presets."""

from __future__ import annotations

import json
from html import unescape

import msgspec
import pytest
from lab_script import SMALL_ARENA as SMALL

from widgets.labs.arena import exports, pictures, plan, screen, tables
from widgets.labs.arena.controller import ArenaLab
from widgets.labs.arena.recorded import recording
from widgets.labs.arena.results import of_folder
from workbench.core.errors import BadInput, BadKnob


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    lab = ArenaLab(folder=str(tmp_path_factory.mktemp("arena") / "sweep"), **SMALL)
    drawn = []
    lab.listen(lambda: drawn.append(lab.contents()))
    lab.start()
    assert lab.wait(60) and not lab.error
    yield lab, drawn
    lab.close()


def test_it_opens_on_a_recorded_example_that_a_measurement_replaces(make, measured):
    kept = recording()
    assert kept is not None and kept.results.table and kept.trials
    lab, (own, _) = make(), measured
    first = lab.contents()
    assert "Recorded example" in first["main"]["layout"]["title"]["text"]
    assert "mean_accepted" in first["detail"] and "node_ratio" in first["table"]
    assert lab.verbs() == {"reset", "start", "look"}
    assert "Recorded" not in str(own.contents())


def test_the_bars_fill_while_it_measures(measured):
    lab, drawn = measured
    counts = [len(c["main"]["data"][0]["x"]) for c in drawn if c["main"]["data"]]
    assert counts[-1] == 2  # plain decoding and the drafter
    assert any("of 4" in c["progress"] for c in drawn), "no progress was shown"
    assert lab.results.done == lab.results.total == 4
    assert "4 of 4 measured, kept in" in lab.contents()["error"]
    assert {"export", "start"} <= lab.verbs() and "stop" not in lab.verbs()


def test_all_four_acceptances_stand_under_their_names(measured):
    shown = measured[0].contents()
    for name in ("mean_accepted", "mean_emitted", "acceptance_ratio", "node_ratio"):
        assert name in shown["table"] and name in shown["detail"]


def test_a_click_on_a_bar_shows_its_configuration(measured):
    lab, _ = measured
    order = pictures.ranking(lab.shown, lab.chosen)[1]
    slowest = lab.results.row(order[-1])
    lab.handle("main", {"kind": "point", "customdata": len(order) - 1})
    assert f'data-cell="{slowest["cell"]}"' in lab.contents()["detail"]
    assert any("▸" in name for name in lab.contents()["main"]["data"][1]["text"])
    lab.handle("main", {"kind": "point", "customdata": 99})  # nobody stands there
    assert lab.chosen == slowest["cell"]
    lab.change("cell", "")
    drafted = [row["cell"] for row in lab.results.table if row["label"] != "plain"]
    assert lab.chosen == drafted[0], "plain decoding is no draft to look at first"


def test_the_same_settings_go_on_with_their_folder_and_others_are_refused(make, measured):
    done = measured[0].results.folder
    lab = make(folder=done)
    lab.look()
    assert lab.results.done == 4 and "4 of 4 measured" in lab.note
    lab.start()
    assert lab.wait(30) and not lab.error and lab.results.done == 4
    assert len(lab.arena.sweep.records) == 4, "something was measured twice"
    other = make(folder=done, new_tokens=7)
    other.start()
    assert "another grid" in other.error and "new_tokens" in other.error
    assert "another grid" in other.contents()["error"]


def test_a_folder_shows_what_the_sweep_that_made_it_shows(measured):
    lab, _ = measured
    seen = of_folder(plan.Path(lab.results.folder))
    assert seen.table == lab.results.table and seen.kinds == lab.results.kinds


def test_pause_keeps_what_there_is_and_stop_ends(make):
    lab = make(repeats=40)
    paused = []

    def once():
        if lab.arena is not None and lab.arena.progress.done >= 2 and not paused:
            paused.append(lab.arena.progress.done)
            lab.pause()

    lab.listen(once)
    lab.start()
    while not paused:
        assert not lab.arena.wait(0.05)
    assert lab.status.state == "paused" and {"start", "stop"} <= lab.verbs()
    lab.arena.wait(0.3)
    here = lab.arena.progress.done
    assert here <= paused[0] + 1 and "paused" in lab.contents()["progress"]
    lab.start()
    lab.arena.wait(0.3)
    lab.stop()
    assert lab.wait(30) and lab.arena.state == "stopped"
    assert here <= lab.results.done < 80 and f"{lab.results.done} of 80" in lab.note


def test_stop_is_acknowledged_while_the_measurement_goes_on(make):
    lab, seen = make(repeats=40), []

    def at_the_first():
        if lab.arena is not None and lab.arena.progress.done == 1 and not lab.arena.stopping:
            lab.stop()  # from the measuring thread, so that it cannot have ended yet
        seen.append(lab.status.line)

    lab.listen(at_the_first)
    lab.start()
    assert lab.wait(30) and lab.results.done == 1
    assert any("stops after the measurement under way" in line for line in seen), seen
    assert lab.status.line == ""


def test_what_cannot_run_is_listed_with_its_reason(make):
    lab = make(drafters=("draft_model", "prompt_lookup"), draft="", new_tokens=4, repeats=1)
    assert "1 cannot run" in lab.contents()["error"]
    lab.start()
    assert lab.wait(30) and not lab.error
    assert 'data-refused="1"' in lab.contents()["table"]
    assert "needs a draft model" in lab.contents()["table"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"knobs": "policy.depht=2"}, "policy.depht"),
        ({"knobs": "policy.depth"}, "PLACE.KNOB"),
        ({"temperatures": "hot"}, "temperature='hot'"),
        ({"targets": " "}, "targets is empty"),
        ({"prompts": "file"}, "path is empty"),
    ],
)
def test_bad_settings_are_said_at_once_and_refused_at_start(make, change, said):
    lab = make(**change)
    assert said in unescape(lab.contents()["error"])
    lab.start()
    assert said in lab.error and lab.arena is None


def test_a_broken_line_is_named_and_skipped_only_if_asked(make, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "def f("}\n{"prompt": \n{"turns": ["class A:"]}\n')
    lab = make(prompts="file", path=str(file), per_kind=5)
    assert "line 2" in lab.contents()["error"]
    assert lab.change("skip_broken", True)
    assert "2 prompts" in lab.contents()["error"] and "1 broken lines" in lab.contents()["error"]


def test_unknown_drafters_and_no_drafters_keep_the_old_choice(make):
    lab = make()
    assert not lab.change("drafters", ["prompt_lokup"])
    assert "prompt_lookup" in lab.error and lab.settings["drafters"] == ("prompt_lookup",)
    assert not lab.change("drafters", [])
    assert "at least one" in lab.error
    assert lab.change("drafters", ["prompt_lookup", "rest"]) and not lab.error
    lab.undo()
    assert lab.settings["drafters"] == ("prompt_lookup",)
    with pytest.raises(BadKnob, match="drafters"):
        ArenaLab(drafters=("nobody",))
    with pytest.raises(BadInput, match="no such setting"):
        ArenaLab(drafter="rest")


def test_an_unnamed_folder_belongs_to_its_grid():
    some, same, other = (plan.grid(ArenaLab(**SMALL, **more).settings) for more in
                         ({}, {"picture": "quality"}, {"carry": True}))  # fmt: skip
    assert plan.folder("", some) == plan.folder("", same) != plan.folder("", other)


def test_export_writes_tables_and_pictures(measured):
    lab, _ = measured
    lab.export()
    folder = plan.Path(lab.results.folder) / "export"
    names = {path.name for path in folder.iterdir()}
    assert {"summary.csv", "measurements.parquet", "ranking.svg", "ranking.html"} <= names
    import pandas

    assert len(pandas.read_parquet(folder / "measurements.parquet")) == 4
    assert "mean_accepted" in (folder / "summary.csv").read_text().splitlines()[0]
    blocked = plan.Path(lab.results.folder) / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        exports.write(blocked / "export", {"a": b""})


def test_other_hardware_is_predicted_and_says_so(make):
    lab = make(show="elsewhere")
    shown = lab.contents()
    assert "data-predicted" in shown["detail"] and "predicted" in shown["table"]
    assert "start" not in lab.verbs() and "export" in lab.verbs()
    near = screen.predicted(lab).here
    assert lab.change("placement", "draft apart")
    apart = screen.predicted(lab).here
    assert apart.speedup < near.speedup
    assert "16 nodes:" in lab.contents()["detail"]
    assert lab.change("hardware", "own") and lab.change("bandwidth_gb_s", 1.0)
    assert screen.predicted(lab).here.plain_ms > 100 * near.plain_ms
    assert not lab.change("bandwidth_gb_s", 0.0) and "bandwidth" in lab.error


def test_a_preset_of_another_machine_warns_and_takes_part(make):
    from workbench.bench.machine import this_machine
    from workbench.bench.preset import Preset

    lab = make()
    cell = plan.grid(make(drafters=("rest",)).settings).expanded()[0][1]
    there = {**this_machine(), "processor": "another one"}
    preset = Preset(cell, 2.0, (1.9, 2.1), there, {}, {}, 5, "workbench bench tune")
    assert lab.open(json.dumps(preset.to_json()).encode(), "preset.json")
    assert lab.show == "tune" and "tuned on" in lab.contents()["detail"]
    cells = plan.grid(lab.settings, lab._extra()).expanded()[0]
    assert cell.id in [one.id for one in cells]
    assert not lab.open(b"{}", "other.json") and "other.json" in lab.error


def test_cost_and_tune_run_on_the_worker(make, tmp_path):
    tune = {"trials": 2, "finalists": 1, "tune_folder": str(tmp_path / "tune")}
    lab = make(show="tune", **{**SMALL, **tune})
    lab.start()
    assert "stop" in lab.verbs() or not lab.worker.running("tune")
    assert lab.wait(60) and not lab.error
    assert len(lab.trials) == 2 and lab.preset is not None
    assert (tmp_path / "tune" / "preset.json").exists()
    assert "data-preset" in lab.contents()["detail"]


def test_a_cost_measurement_can_be_stopped(make):
    lab = make(show="cost", new_tokens=48)
    lab.start()
    lab.stop()
    assert lab.wait(30) and lab.report is None and not lab.error


def test_a_measurement_that_something_ran_beside_is_told(measured):
    lab, _ = measured
    quiet = tables.arena(lab.results, "")
    row = {**lab.results.table[0], "disturbed": 1}
    loud = msgspec.structs.replace(lab.results, table=[row, *lab.results.table[1:]])
    assert "disturbed 1 of 2 times" in tables.arena(loud, "")
    assert "What these numbers are" in quiet and "bootstrap" in quiet
