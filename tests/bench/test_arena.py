"""The arena: acceptances by name, quality, parquet, pause and stop, exit codes."""

from __future__ import annotations

import json
import threading

import pandas
import pytest

from workbench.bench import summary
from workbench.bench.arena import Arena
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Grid, Setting
from workbench.bench.measurement import log_likelihood, positions
from workbench.cli import main
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load

TEXTS = (("a", "x", "def add(a, b):\n    return"), ("b", "y", "import os\nimport"))
PROMPTS = PromptSet("made", tuple(BenchPrompt(*text) for text in TEXTS))


def grid(**changes) -> Grid:
    base = {"targets": ("zoo:draft",), "repeats": 1, "setting": Setting(8)}
    return Grid(**{"prompts": PROMPTS, **base, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Arena:
    made = grid(
        drafters=("draft_model", "token_recycling"),
        verifiers=("exact_match", "typical"),
        samplings=(Sampling(), Sampling(1.0)),
        repeats=2,
    )
    arena = Arena(made, tmp_path_factory.mktemp("arena"))
    arena.run()
    return arena


def test_the_table_names_every_acceptance_and_divides_sums(finished):
    table = finished.table()
    assert len(table) == 10
    plain = [row for row in table if row["label"] == "plain"]
    assert [row["ratio"] for row in plain] == [1.0, 1.0] and plain[0]["mean_emitted"] == 1.0
    own = [row for row in table if row["label"].startswith("draft_model of zoo:draft, exact")]
    assert own[0]["acceptance_ratio"] == 1.0 == own[0]["node_ratio"], "a model drafts for itself"
    assert own[0]["same_tokens"] == "4/4" and own[0]["temperature"] == 0
    assert own[0]["position_acceptance"][:2] == [1.0, 1.0]
    for row in table:
        low, high = row["ratio_interval"]
        assert low <= row["ratio"] <= high and row["measurements"] == row["paired"] == 4
        assert {"mean_accepted", "mean_emitted", "acceptance_ratio", "node_ratio"} <= row.keys()


def test_expected_emission_is_what_is_realised_on_average(finished):
    """At temperature 0 both are certain, and equal round by round."""
    for row in finished.table():
        if row["temperature"] == 0:
            assert row["expected_emitted"] == pytest.approx(row["realised_emitted"])
        assert 1 <= row["expected_emitted"] <= 6


def test_a_lossy_rule_is_marked_and_weighed_by_the_target_itself(finished):
    rows = {(row["temperature"], row["label"]): row for row in finished.table()}
    typical = rows[1.0, "draft_model of zoo:draft, typical, fixed"]
    assert typical["lossless"] is False
    assert typical["log_likelihood_gain"] == pytest.approx(
        typical["log_likelihood"] - rows[1.0, "plain"]["log_likelihood"]
    )
    assert rows[1.0, "plain"]["log_likelihood_gain"] == 0.0


def test_log_likelihood_is_that_of_a_plain_forward():
    model = load("zoo:draft")
    prompt, new = model.encode("def add(a, b):"), model.encode(" return a + b")
    laws = model.session().forward([*prompt, *new]).logits.double().log_softmax(-1)
    each = [float(laws[len(prompt) - 1 + i, token]) for i, token in enumerate(new)]
    assert log_likelihood(model, prompt, new) == pytest.approx(sum(each) / len(each), abs=1e-5)
    assert log_likelihood(model, prompt, []) is None


def test_positions_are_counted_along_the_path():
    settings = RunSettings(
        load("zoo:draft"), TEXTS[0][2], "token_recycling", max_new_tokens=48, record_top=0
    )
    rounds = generate(settings).rounds
    found = positions(rounds)
    assert sum(found["kept_at_depth"]) == sum(r.accepted for r in rounds)
    assert found["tried_at_depth"][0] == sum(bool(r.tokens) for r in rounds)
    refused = sum(bool(r.tokens) and r.end_fate == "corrected" for r in rounds)
    assert sum(found["tried_at_depth"]) == sum(r.accepted for r in rounds) + refused
    assert 0 < refused < len(rounds), "some paths end at a leaf, where nothing was tried"
    kept, tried = found["kept_at_depth"], found["tried_at_depth"]
    assert all(later <= before for before, later in zip(kept, tried[1:], strict=False))
    assert positions([]) == {"tried_at_depth": [], "kept_at_depth": []}


def test_ratios_pair_neighbours_of_one_session_only():
    def record(cell, session, seconds, state="done", repeat=0):
        head = {"cell": cell, "prompt": "p", "kind": "k", "repeat": repeat, "session": session}
        times = {"wall_s": seconds, "cpu_s": seconds, "tokens": 10, "text_tokens": [1]}
        return {**head, "state": state, **times, "log_likelihood": -1.0}

    cells = {
        "plain": {"target": "t", "sampling": {"temperature": 0}, "drafter": {"name": "none"}},
        "fast": {"target": "t", "sampling": {"temperature": 0}, "drafter": {"name": "rest"}},
    }
    records = [record("plain", "s1", 4.0), record("fast", "s2", 1.0)]
    assert [r["ratio"] for r in summary.paired(records, cells)] == [1.0, None]
    records.append(record("plain", "s2", 3.0, "again"))
    found = summary.paired(records, cells)
    assert [(r["cell"], r["ratio"]) for r in found] == [("plain", 1.0), ("fast", 3.0)]
    records.append(record("fast", "s2", 1.5))
    assert [r["ratio"] for r in summary.paired(records, cells)] == [1.0, 2.0], "the newest counts"
    assert summary.by_kind(records, cells)["fast", "k"] == (2.0, [2.0, 2.0])


def test_finish_writes_parquet_and_a_summary(finished):
    folder = finished.sweep.journal.folder
    frame = pandas.read_parquet(folder / "measurements.parquet")
    assert len(frame) == 10 * 2 * 2 and set(frame["state"]) == {"done"}
    assert {"ratio", "node_ratio", "drafter", "temperature", "round_ms"} <= set(frame.columns)
    told = json.loads((folder / "summary.json").read_text())
    assert told["state"] == "finished" and len(told["table"]) == 10
    assert not list(folder.glob("*.partial"))


def test_pause_stop_and_partial_results(tmp_path):
    seen, third = [], threading.Event()

    def listen(progress):
        seen.append(progress.done)
        if progress.done == 3:
            arena.pause()
            third.set()

    arena = Arena(grid(repeats=2), tmp_path, listen)
    assert arena.state == "idle" and arena.table() == []
    arena.start()
    assert third.wait(30)
    assert arena.state == "paused" and not arena.wait(0.2)
    assert len(arena.results()) == 3 == arena.progress.done
    arena.stop(30)
    assert arena.state == "stopped" and len(arena.results()) == 3
    arena.start()
    assert arena.state == "stopped", "an ended arena stays ended"
    later = Arena(grid(repeats=2), tmp_path)
    later.start()
    assert later.wait(30) and later.state == "finished" and later.progress.done == 8


def test_what_a_listener_raises_does_not_touch_the_sweep(tmp_path, caplog):
    def listen(progress):
        raise ValueError("a broken picture")

    arena = Arena(grid(drafters=("none",)), tmp_path, listen)
    arena.run()
    assert arena.state == "finished" and "the listener of an arena failed" in caplog.text


def command(folder, *more: str) -> list[str]:
    base = ["bench", "arena", "--folder", str(folder), "--target", "zoo:draft", "--repeats", "1"]
    small = ["--new-tokens", "5", "--prompts-per-kind", "1", "--drafter", "token_recycling"]
    return [*base, *small, *more]


def test_command_prints_a_table_and_json(tmp_path, capsys):
    words = command(tmp_path, "--verifier", "exact_match", "rejection", "--set", "policy.depth=2,3")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "acc.ratio" in out and "node ratio" in out and "start anew at every prompt" in out
    assert "cannot run: token_recycling, rejection" in out and "takes one chain" in out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done"] == told["total"] == 5 and len(told["refused"]) == 2
    assert len(told["sessions"]) == 2


def test_exit_codes(tmp_path, capsys, monkeypatch):
    (tmp_path / "p.jsonl").write_text('{"prompt": "import"}\n{"prompt":\n')
    words = command(tmp_path / "run", "--prompts", str(tmp_path / "p.jsonl"))
    assert main(words) == 2
    assert "p.jsonl line 2: not JSON" in capsys.readouterr().err
    assert main([*words, "--skip-broken"]) == 0
    assert "left out: " in capsys.readouterr().out
    assert main([*words, "--skip-broken", "--carry"]) == 2
    assert "setting.carry False there, True asked for" in capsys.readouterr().err
    assert main(command(tmp_path / "x", "--set", "policy.depth")) == 2
    assert main(command(tmp_path / "x", "--set", "policy.dpth=3")) == 2
    assert "Did you mean 'policy.depth'" in capsys.readouterr().err
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "x = 1\n" * 4000}) + "\n")
    assert main(command(tmp_path / "y", "--prompts", str(long))) == 1, "a measurement failed"
    assert "shorten it" in capsys.readouterr().out
    monkeypatch.setattr("workbench.bench.sweep.Sweep.steps", interrupted)
    assert main(command(tmp_path / "z")) == 130


def interrupted(self):
    raise KeyboardInterrupt
    yield
