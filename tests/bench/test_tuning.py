"""The tuner: resumable trials, pruning, finalists measured again; presets and machines."""

from __future__ import annotations

import dataclasses
import json

import pytest

from workbench.bench import tuning
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Setting, plain_cell
from workbench.bench.machine import alike, processor_name, this_machine
from workbench.bench.preset import Preset, open_preset
from workbench.bench.search import Search
from workbench.bench.tuning import LOG, Tuner
from workbench.cli import main
from workbench.core.errors import BadInput, BadKnob, UnknownMethod
from workbench.core.sampling import Sampling
from workbench.models.load import load

PROMPTS = PromptSet("made", tuple(BenchPrompt(n, "x", f"def {n}(a):") for n in "abc"))
ELSEWHERE = {"host": "node7", "processor": "Another 9000", "cores": 64, "gpus": ["H100"]}


def search(**changes) -> Search:
    base = {"target": "zoo:draft", "drafters": ("prompt_lookup", "token_recycling")}
    small = {"setting": Setting(4), "trials": 3, "finalists": 2, "repeats": 1}
    return Search(**{"prompts": PROMPTS, **base, **small, **changes})


def finish(folder, **changes) -> Tuner:
    tuner = Tuner(search(**changes), folder)
    try:
        for _ in tuner.steps():
            pass
    finally:
        tuner.close()
    return tuner


def invented(monkeypatch, rate):
    """Measurements whose speed is ``rate(cell)`` times plain decoding's."""

    def measure_block(block):
        for cell in block.cells:
            for _, prompt in block.prompts:
                told = rate(cell)
                if isinstance(told, str):
                    yield block.record(cell, prompt, "failed", error=told)
                    continue
                more = {"wall_s": 1 / told, "cpu_s": 1.0, "tokens": 1, "text_tokens": [1]}
                yield block.record(cell, prompt, "done", **more, log_likelihood=None)

    monkeypatch.setattr(tuning, "measure_block", measure_block)


def test_a_search_measures_confirms_and_keeps_a_preset(tmp_path):
    tuner = finish(tmp_path)
    rows = tuner.history()
    assert [row["trial"] for row in rows] == [0, 1, 2]
    first = [row["label"].split(",")[0] for row in rows[:2]]
    assert first == ["prompt_lookup", "token_recycling"], "the defaults come first"
    assert [row["best"] for row in rows] == sorted(row["best"] for row in rows)
    preset = open_preset(tmp_path / "preset.json")
    assert preset.cell.id == tuner.preset.cell.id and preset.trials == 3
    assert preset.ratio_interval[0] <= preset.ratio <= preset.ratio_interval[1]
    model = load("zoo:draft")
    settings = preset.settings(model, "import", None, max_new_tokens=3)
    assert settings.drafter == preset.cell.make("drafter") and settings.max_new_tokens == 3
    records = list(tmp_path.glob("confirmed-*/measurements.jsonl"))
    assert len(records) == 1, "the finalists were measured again"


def test_what_the_sampler_learns_and_prunes(tmp_path, monkeypatch):
    """Speed is nodes / 8 for one drafter and half of that for the other."""

    def rate(cell):
        share = 1.0 if cell.drafter.name == "token_recycling" else 0.5
        return 1.0 if cell.plain else cell.policy.knobs["nodes"] / 8 * share

    invented(monkeypatch, rate)
    monkeypatch.setattr(Tuner, "_confirm", lambda self: iter(()))
    rows = finish(tmp_path, trials=40, most={"nodes": 32, "depth": 3, "width": 2}).history()
    done = [row for row in rows if row["state"] == "complete"]
    assert len(rows) == 40 and any(row["state"] == "pruned" for row in rows)
    assert max(done, key=lambda row: row["ratio"])["drafter"] == "token_recycling"
    assert rows[-1]["best"] >= 3.0
    assert all(row["fixed.nodes"] <= 32 and row["fixed.depth"] <= 3 for row in rows)


def test_a_killed_search_goes_on_and_repeats_no_trial(tmp_path, monkeypatch):
    invented(monkeypatch, lambda cell: 1.0)
    monkeypatch.setattr(Tuner, "_confirm", lambda self: iter(()))
    tuner = Tuner(search(), tmp_path)
    steps = tuner.steps()
    for _ in range(6):  # three prompts and the end of trial 1, two prompts of trial 2
        next(steps)
    begun = tuner._study.get_trials()[1].params
    tuner._held.close()  # as a kill would: trial 2 is left running, its log is cut off
    with open(tmp_path / LOG, "ab") as log:
        log.write(b'{"op_code": 5, "wor')
    (tmp_path / f"{LOG}.lock").symlink_to(tmp_path / LOG)
    rows = finish(tmp_path).history()
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert {k: v for k, v in rows[1].items() if k in begun} == begun, "taken up again"
    assert len(finish(tmp_path, trials=5).history()) == 5, "more may be asked for"


def test_a_trial_that_fails_is_kept_with_its_reason(tmp_path, monkeypatch):
    def rate(cell):
        return "RuntimeError: no room" if cell.drafter.name == "prompt_lookup" else 1.0

    invented(monkeypatch, rate)
    monkeypatch.setattr(Tuner, "_confirm", lambda self: iter(()))
    rows = finish(tmp_path, drafters=("prompt_lookup", "token_recycling")).history()
    assert rows[0]["state"] == "fail" and rows[0]["reason"] == "RuntimeError: no room"
    assert rows[1]["state"] == "complete"


def test_nothing_measurable_is_said(tmp_path, monkeypatch):
    invented(monkeypatch, lambda cell: "broken")
    with pytest.raises(BadInput, match="no trial could be measured to its end"):
        finish(tmp_path)


def test_another_search_or_machine_is_refused_with_the_fix(tmp_path, monkeypatch):
    Tuner(search(), tmp_path).close()
    with pytest.raises(BadInput, match=r"another search \(target zoo:draft there, zoo:target ask"):
        Tuner(search(target="zoo:target"), tmp_path)
    first = Tuner(search(), tmp_path)
    with pytest.raises(BadInput, match="in use by another process"):
        Tuner(search(), tmp_path)
    first.close()
    monkeypatch.setattr(tuning, "this_machine", lambda: ELSEWHERE)
    with pytest.raises(BadInput, match=r"times of two machines do not compare"):
        Tuner(search(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"trials": 0}, BadInput, "trials=0: must be 1 or more"),
        ({"drafters": ()}, BadInput, "drafter: name at least one"),
        ({"policies": ("fixd",)}, UnknownMethod, "Did you mean 'fixed'"),
        ({"knobs": ("token_recycling.q",)}, BadKnob, "token_recycling.k"),
    ],
)
def test_mistakes_in_a_search(changes, error, said):
    with pytest.raises(error, match=said):
        search(**changes)


def made_preset(**changes) -> Preset:
    cell = plain_cell("zoo:draft", Sampling())
    base = (cell, 1.5, (1.2, 1.8), this_machine(), {"count": 3, "source": "zoo"}, {}, 30, "tune it")
    return dataclasses.replace(Preset(*base), **changes)


def test_a_preset_from_another_machine_names_both_and_the_way_out(tmp_path, capsys):
    assert made_preset().warning() == ""
    foreign = made_preset(machine=ELSEWHERE)
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(foreign.to_json()))
    assert open_preset(path).to_json() == foreign.to_json()
    assert main(["bench", "tune", "--open", str(path)]) == 0
    out, err = capsys.readouterr()
    here = f"{this_machine()['host']} ({processor_name()}, {this_machine()['cores']} cores"
    assert "node7 (Another 9000, 64 cores, H100)" in err and here in err
    assert "Tune anew with: tune it" in err and "1.50 x plain" in out
    assert not alike(this_machine(), ELSEWHERE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: "{", "is not JSON"),
        (lambda told: json.dumps({**told, "schema": 9}), "not schema 1"),
        (lambda told: json.dumps({**told, "ratio_interval": [1]}), "tune anew"),
        (lambda told: json.dumps({k: v for k, v in told.items() if k != "cell"}), "no preset"),
        (lambda told: json.dumps(told).replace('"none"', '"gone"'), "drafter='gone' is not known"),
        (lambda told: "[]", "no preset"),
    ],
)
def test_a_file_that_is_no_preset(tmp_path, change, said):
    path = tmp_path / "preset.json"
    path.write_text(change(made_preset().to_json()))
    with pytest.raises(BadInput, match=said):
        open_preset(path)


def test_command_tunes_resumes_and_feeds_the_arena(tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "import"}\n')
    words = ["bench", "tune", "--folder", str(tmp_path / "t"), "--target", "zoo:draft"]
    words += ["--drafter", "prompt_lookup", "--prompts", str(tmp_path / "p.jsonl")]
    words += ["--new-tokens", "4", "--trials", "2", "--repeats", "1"]
    assert main(words) == 0
    assert "measured again after 2 trials" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trials"] == 2 == len(told["history"]) and told["warning"] == ""
    assert "--target zoo:draft" in told["command"]
    arena = ["bench", "arena", "--folder", str(tmp_path / "a"), "--drafter", "none", "--target"]
    arena += ["zoo:draft", "--preset", str(tmp_path / "t" / "preset.json"), "--repeats", "1"]
    assert main([*arena, "--prompts-per-kind", "1", "--new-tokens", "4", "--json"]) == 0
    labels = [row["label"] for row in json.loads(capsys.readouterr().out)["table"]]
    assert "plain" in labels and any(label.startswith("prompt_lookup") for label in labels)
