"""Only one measures at a time: between threads, between processes, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from workbench.bench.arena import Arena
from workbench.bench.datasets import BenchPrompt, PromptSet
from workbench.bench.grid import Grid, Setting
from workbench.bench.turn import Turn, turn_of

HOLD = """
import sys, time
from workbench.bench.turn import Turn, turn_of
assert Turn("the sweep of another process").taken()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_file(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_TURN", str(tmp_path / "turn"))


def small(folder, repeats: int = 1) -> Arena:
    prompts = PromptSet("made", (BenchPrompt("a", "x", "def add(a, b):\n    return"),))
    parts = {"targets": ("zoo:draft",), "drafters": ("prompt_lookup",), "setting": Setting(4)}
    return Arena(Grid(prompts, repeats=repeats, **parts), folder)


def test_one_has_it_and_the_other_is_told_who():
    one, other = Turn("one"), Turn("other")
    assert one.taken() and one.taken(), "taking it again is no waiting"
    assert not other.taken() and other.holder() == "one"
    other.leave()
    assert not other.taken(), "who has no turn cannot give it away"
    one.leave()
    assert other.taken() and not one.taken()
    other.leave()


def test_another_process_has_it_until_it_is_killed():
    there = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert there.stdout is not None and there.stdout.readline() == "held\n"
        mine = Turn("mine")
        assert not mine.taken()
        assert mine.holder() == f"the sweep of another process, process {there.pid}"
        told: list[str] = []
        assert not mine.wait(told.append, lambda s: len(told) > 0) and "another process" in told[0]
    finally:
        os.kill(there.pid, signal.SIGKILL)
        there.communicate()
    assert mine.taken(), "a killed process has kept its turn"
    mine.leave()


def test_where_no_file_can_be_written_threads_still_take_turns(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_TURN", str(tmp_path / "file" / "turn"))
    one, other = Turn("one"), Turn("other")
    assert one.taken() and not other.taken()
    one.leave()
    assert other.taken()
    other.leave()


def test_a_sweep_waits_says_for_whom_and_goes_on(tmp_path):
    first, told = Turn("the search in runs/t"), []
    assert first.taken()
    arena = small(tmp_path / "waits")
    waits = threading.Event()
    arena._listen = lambda seen: (told.append(seen.line), waits.set() if arena.waiting else None)
    arena.start()
    assert waits.wait(10) and arena.waiting == "the search in runs/t"
    assert any(line.startswith("waiting for the search in runs/t") for line in told)
    assert not arena.wait(0.3) and arena.progress.done == 0
    first.leave()
    assert arena.wait(60) and arena.state == "finished" and not arena.waiting
    assert first.taken(), "a sweep that ended has kept its turn"
    first.leave()


def test_a_sweep_can_be_stopped_while_it_waits(tmp_path):
    first = Turn("first")
    assert first.taken()
    arena = small(tmp_path / "waits")
    arena.start()
    assert not arena.wait(0.3)
    arena.stop()
    assert arena.wait(5) and arena.state == "stopped" and arena.progress.done == 0
    assert first.taken(), "who only waited gave the turn away"
    first.leave()


def test_a_paused_sweep_lets_others_measure(tmp_path):
    arena, begun, before = small(tmp_path / "paused", repeats=50), threading.Event(), [0]
    arena._listen = lambda seen: begun.set() if seen.done > before[0] else None
    arena.start()
    assert begun.wait(30)
    other = Turn("other")
    assert not other.taken()
    arena.pause()
    tries = iter(range(50))
    late = lambda s: arena.wait(s) or next(tries, None) is None  # noqa: E731
    assert other.wait(lambda holder: None, late), "a pause keeps the turn"
    arena.start()
    assert not arena.wait(0.5) and arena.waiting == "other"
    before[0] = arena.progress.done
    begun.clear()
    other.leave()
    assert begun.wait(10), "it does not go on"
    arena.stop(10)
    assert arena.state == "stopped"


@pytest.mark.parametrize("command", ["peers", "claims", "cost", "performance"])
def test_commands_that_measure_have_the_turn(run, monkeypatch, command):
    others = []

    def measure(*args) -> int:
        other = Turn("other")
        others.append((other.taken(), other.holder()))
        return 0

    where = {"cost": "cost_command"}.get(command, command)
    monkeypatch.setattr(f"workbench.bench.{where}.run", measure)
    assert run("bench", command)[0] == 0
    assert others == [(False, f"bench {command}")]
    after = Turn("after")
    assert after.taken(), "the command has kept its turn"
    after.leave()


def test_a_command_waits_and_says_for_whom(capsys):
    first, inside = Turn("first"), threading.Event()

    def second() -> None:
        with turn_of("second"):
            inside.set()

    assert first.taken()
    thread = threading.Thread(target=second)
    thread.start()
    assert not inside.wait(0.5)
    first.leave()
    assert inside.wait(10)
    thread.join()
    assert "waiting for first" in capsys.readouterr().err
