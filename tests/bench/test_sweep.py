"""Sweeps: durable lines, kill -9, full disks, failures half-way, another grid's folder."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.bench import measurement
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Grid, Setting
from workbench.bench.journal import LINES, MANIFEST, Journal, JournalFull, read_records
from workbench.bench.sweep import Sweep
from workbench.core.errors import BadInput

PROMPTS = PromptSet("made", (BenchPrompt("a", "x", "def f(a):"), BenchPrompt("b", "y", "import")))


def grid(**changes) -> Grid:
    base = {"targets": ("zoo:draft",), "repeats": 2, "setting": Setting(5)}
    return Grid(**{"prompts": PROMPTS, **base, **changes})


def keys(folder: Path, *states: str) -> list[tuple]:
    found = read_records(folder)
    return [(r["cell"], r["prompt"], r["repeat"]) for r in found if r["state"] in states]


def every_key(made: Grid) -> set[tuple]:
    names = [prompt.name for prompt in made.prompts.prompts]
    cells = made.expanded()[0]
    return {(c.id, n, r) for c in cells for n in names for r in range(made.repeats)}


def finish(made: Grid, folder: Path, **options) -> list:
    sweep = Sweep(made, folder, **options)
    try:
        return list(sweep.steps())
    finally:
        sweep.close()


def test_everything_is_measured_once_and_interleaved(tmp_path):
    made = grid(drafters=("token_recycling", "prompt_lookup"))
    seen = finish(made, tmp_path)
    records = read_records(tmp_path)
    assert set(keys(tmp_path, "done")) == every_key(made) and len(records) == 12
    assert [s.done for s in seen] == list(range(1, 13)) and seen[-1].total == 12
    assert seen[-1].eta_s == 0.0 and all(s.eta_s > 0 for s in seen[:-1])
    orders = [[r["cell"] for r in records[i : i + 3]] for i in range(0, 12, 3)]
    assert orders[0] == orders[1][::-1] == orders[2][::-1] == orders[3]
    for record in records:
        assert record["tokens"] == 5 == len(record["text_tokens"])
        assert record["rounds"] == len(record["round_ms"]) == record["target_forwards"]
        assert record["wall_s"] > 0 and record["cpu_s"] > 0
    assert not finish(made, tmp_path), "nothing is left"
    sessions = json.loads((tmp_path / MANIFEST).read_text())["sessions"]
    assert len(sessions) == 2 and sessions[0]["machine"]["versions"]["torch"]


def test_same_seed_for_all_cells_and_another_for_each_prompt_and_repeat():
    made = grid()
    cell = made.expanded()[0][1]
    seeds = {made.setting.sampling(cell, r, p).seed for r in range(3) for p in range(5)}
    assert len(seeds) == 15


@pytest.mark.slow
def test_kill_9_loses_and_doubles_nothing(tmp_path):
    command = [sys.executable, "-m", "workbench.cli", "bench", "arena", "--folder", str(tmp_path)]
    command += ["--target", "zoo:draft", "--drafter", "prompt_lookup", "token_recycling"]
    command += ["--prompts", "zoo:code", "--new-tokens", "12", "--repeats", "2"]
    command += ["--prompts-per-kind", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines = tmp_path / LINES
    until = time.monotonic() + 60
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    before = keys(tmp_path, "done")
    with open(lines, "ab") as file:
        file.write(b'{"cell":"half a li')
    from workbench.bench.arena_command import grid_of
    from workbench.cli import build_parser

    made = grid_of(build_parser("bench").parse_args(command[3:]))
    sweep = Sweep(made, tmp_path)
    assert sweep.journal.torn_bytes == 18
    assert 3 <= sweep.progress().done == len(before) < sweep.progress().total
    list(sweep.steps())
    sweep.close()
    after = keys(tmp_path, "done")
    assert after[: len(before)] == before, "nothing lost"
    assert len(after) == len(set(after)) and set(after) == every_key(made), "nothing doubled"


def test_a_block_taken_up_again_measures_plain_anew(tmp_path):
    made = grid(drafters=("token_recycling", "prompt_lookup"), repeats=1)
    sweep = Sweep(made, tmp_path)
    steps = sweep.steps()
    next(steps), next(steps)
    steps.close()
    sweep.close()
    first = read_records(tmp_path)
    assert [r["state"] for r in first] == ["done", "done"]
    finish(made, tmp_path)
    later = read_records(tmp_path)[2:]
    plain = made.expanded()[0][0].id
    assert [(r["cell"], r["prompt"]) for r in later if r["state"] == "again"] == [(plain, "a")]
    assert {r["session"] for r in later}.isdisjoint({r["session"] for r in first})
    from workbench.bench.summary import paired

    rows = paired(read_records(tmp_path), made.to_json()["cells"])
    assert len(rows) == 6 and all(row["ratio"] is not None for row in rows)


def test_a_configuration_that_fails_halfway_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    real, broken = measurement.measure, []

    def measure(cell, setting, prompt, repeat, place, carried=None):
        if cell.drafter.name == "token_recycling" and prompt.name == "b" and broken:
            raise RuntimeError("the table is gone")
        return real(cell, setting, prompt, repeat, place, carried)

    monkeypatch.setattr(measurement, "measure", measure)
    broken.append(True)
    made = grid()
    seen = finish(made, tmp_path)
    failed = [r for r in read_records(tmp_path) if r["state"] == "failed"]
    assert [r["prompt"] for r in failed] == ["b", "b"] and seen[-1].failed == 2
    assert failed[0]["error"] == "RuntimeError: the table is gone"
    assert seen[-1].done == seen[-1].total == 8 and len(keys(tmp_path, "done")) == 6
    assert not finish(made, tmp_path), "a failure is settled too"
    broken.clear()
    again = finish(made, tmp_path, retry_failed=True)
    assert len(keys(tmp_path, "done")) == 8 and again[-1].failed == 0


def test_a_combination_that_cannot_run_is_named_once_and_left(tmp_path):
    made = grid(verifiers=("exact_match", "rejection"))
    sweep = Sweep(made, tmp_path)
    seen = list(sweep.steps())
    sweep.close()
    (refusal,) = sweep.refusals
    assert "rejection" in refusal.label and "takes one chain" in refusal.reason
    assert len(keys(tmp_path, "refused")) == 1 and seen[-1].done == seen[-1].total
    assert Sweep(made, tmp_path).refusals == sweep.refusals


def test_a_full_disk_says_what_is_kept_and_how_to_go_on(tmp_path):
    made = grid(repeats=1)
    sweep = Sweep(made, tmp_path)
    steps = sweep.steps()
    next(steps)
    whole = (tmp_path / LINES).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 99, limits[1]))  # room for a part only
    try:
        with pytest.raises(JournalFull, match=r"The 1 measurements before are kept.*it goes on"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / LINES).read_bytes() == whole, "no part of a line is left"
    sweep.close()
    finish(made, tmp_path)
    assert sorted(keys(tmp_path, "done")) == sorted(every_key(made))


def test_a_folder_of_another_grid_is_refused_with_what_differs(tmp_path):
    finish(grid(repeats=1, drafters=("none",)), tmp_path)
    before = (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(BadInput, match=r"another grid \(0 cells only there, 1 only asked for; set"):
        Sweep(grid(repeats=1, setting=Setting(6)), tmp_path)
    with pytest.raises(BadInput, match=r"repeats 1 there, 2 asked for.*Name another folder"):
        Sweep(grid(drafters=("none",)), tmp_path)
    other = PromptSet("made", PROMPTS.prompts[:1])
    with pytest.raises(BadInput, match=r"prompts\.count 2 there, 1 asked for"):
        Sweep(grid(repeats=1, drafters=("none",), prompts=other), tmp_path)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_two_processes_cannot_write_one_folder(tmp_path):
    first = Sweep(grid(), tmp_path)
    with pytest.raises(BadInput, match="in use by another process"):
        Sweep(grid(), tmp_path)
    first.close()
    Sweep(grid(), tmp_path).close()


def test_damage_is_named_by_line(tmp_path):
    Journal(tmp_path, {"cells": {}}, {}).close()
    (tmp_path / LINES).write_text('{"cell":"c","prompt":"p","repeat":0,"state":"done"}\n{"c\n')
    with pytest.raises(BadInput, match=r"measurements\.jsonl line 2 is damaged"):
        Journal(tmp_path, {"cells": {}}, {})
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(BadInput, match=r"manifest\.json is damaged"):
        Journal(tmp_path, {"cells": {}}, {})
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(BadInput, match="nobody knows what was measured"):
        Journal(tmp_path, {"cells": {}}, {})


def test_state_is_new_at_every_prompt_unless_carried(tmp_path, monkeypatch):
    states, real = [], measurement.measure

    def measure(cell, setting, prompt, repeat, place, carried=None):
        if not cell.plain:
            states.append((prompt.name, carried is not None))
        return real(cell, setting, prompt, repeat, place, carried)

    monkeypatch.setattr(measurement, "measure", measure)
    finish(grid(repeats=1), tmp_path / "reset")
    assert states == [("a", False), ("b", False)]
    states.clear()
    made = grid(repeats=1, setting=Setting(5, carry=True))
    sweep = Sweep(made, tmp_path / "carry")
    steps = sweep.steps()
    next(steps), next(steps)  # plain and token_recycling on a; b is left
    steps.close()
    sweep.close()
    assert states == [("a", False)]
    finish(made, tmp_path / "carry")
    assert states == [("a", False), ("a", False), ("b", True)], "a again, only for its state"
    assert sorted(keys(tmp_path / "carry", "done")) == sorted(every_key(made))
