"""The lab worker: newest ask wins, pause, stop, failures."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from lab_script import LONG_S

from widgets.labs.worker import Status, Worker
from workbench.core.errors import BadInput


@pytest.fixture
def heard():
    return []


@pytest.fixture
def worker(heard):
    made = Worker(lambda: None, lambda name, message: heard.append((name, message)))
    yield made
    made.close()


def until(condition, seconds: float = LONG_S) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def endless(log, name):
    def work(task):
        log.append(f"{name} began")
        while True:
            task.tell(name)
            time.sleep(0.005)

    return work


def test_a_newer_ask_takes_the_place_of_the_older_one(worker, heard):
    log = []
    worker.ask("measure", endless(log, "first"))
    assert until(lambda: log == ["first began"])
    worker.ask("measure", lambda task: log.append("second"))
    assert worker.wait(LONG_S) and log == ["first began", "second"] and heard == []


def test_of_many_waiting_asks_only_the_newest_is_done(worker):
    log, gate = [], threading.Event()
    worker.ask("load", lambda task: gate.wait(LONG_S))
    assert until(lambda: worker.status.state == "busy")
    for number in range(40):
        worker.ask("measure", lambda task, number=number: log.append(number))
    gate.set()
    assert worker.wait(LONG_S) and log == [39]


def test_asks_of_other_names_wait_their_turn(worker):
    log = []
    asked = threading.Event()
    worker.ask("a", lambda task: (asked.wait(LONG_S), log.append("a")))
    worker.ask("b", lambda task: log.append("b"))
    asked.set()
    assert worker.wait(LONG_S) and log == ["a", "b"]


def test_pause_holds_the_task_and_stop_ends_a_paused_one(worker, heard):
    ticks = []

    def work(task):
        for step in range(10**6):
            task.tell("training", step / 10**6)
            ticks.append(step)
            time.sleep(0.002)

    worker.ask("train", work)
    assert until(lambda: len(ticks) > 2)
    worker.pause()
    assert worker.status.state == "paused" and worker.status.line.endswith("paused")
    time.sleep(0.15)
    held = len(ticks)
    time.sleep(0.15)
    assert len(ticks) == held
    worker.resume()
    assert until(lambda: len(ticks) > held)
    worker.pause()
    worker.stop()
    assert worker.wait(LONG_S) and worker.status == Status() and heard == []


def test_a_failure_is_told_and_the_next_ask_runs(worker, heard):
    log = []

    def broken(task):
        raise BadInput("ratio=2: must lie in [0, 1]")

    worker.ask("apply", broken)
    assert worker.wait(LONG_S)
    worker.ask("apply", lambda task: 1 / 0)
    assert worker.wait(LONG_S)
    worker.ask("apply", lambda task: log.append("fine"))
    assert worker.wait(LONG_S) and log == ["fine"]
    assert heard[0] == ("apply", "ratio=2: must lie in [0, 1]")
    assert "ZeroDivisionError" in heard[1][1] and "bug" in heard[1][1]


def test_a_closed_worker_does_nothing_more(worker):
    log = []
    worker.ask("a", endless(log, "a"))
    assert until(lambda: log)
    worker.close()
    worker.ask("b", lambda task: log.append("b"))
    time.sleep(0.05)
    assert "b" not in log and not worker._thread.is_alive()


def test_time_left_is_said_once_there_is_something_to_go_by(worker, monkeypatch):
    lines, now = [], [100.0]
    monkeypatch.setattr("widgets.labs.worker.time", SimpleNamespace(monotonic=lambda: now[0]))

    def work(task):
        progress = task.timed("Measuring")
        for now[0], fraction in ((101.9, 0.1), (102.1, 0.5), (106.0, 0.75)):
            progress(fraction)
            lines.append(worker.status.line)

    worker.ask("m", work)
    assert worker.wait(LONG_S)
    assert lines == ["Measuring", "Measuring · 2 s left", "Measuring · 2 s left"]
