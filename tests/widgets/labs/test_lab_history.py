"""Undo, redo, reset; and the one thread that draws."""

from __future__ import annotations

import threading
import time

from lab_script import LONG_S, until

from widgets.labs.coalesce import Coalescer
from widgets.labs.history import DEPTH, History


def test_a_drag_is_one_step_back():
    now = [0.0]
    history = History({"k": 1, "t": 0.0}, clock=lambda: now[0])
    for value in (2, 3, 4):
        now[0] += 0.1
        assert history.put("k", value)
    now[0] += 5
    history.put("k", 9)
    history.put("t", 0.5)
    assert history.undo() and history.now["t"] == 0.0
    assert history.undo() and history.now["k"] == 4
    assert history.undo() and history.now["k"] == 1
    assert not history.undo() and history.redo() and history.now["k"] == 4


def test_a_change_after_undo_drops_what_was_undone():
    history = History({"k": 1}, clock=iter(range(0, 1000, 5)).__next__)
    history.put("k", 2)
    history.undo()
    history.put("k", 3)
    assert not history.can_redo and not history.redo() and history.now["k"] == 3


def test_the_same_value_is_no_change():
    history = History({"k": 1})
    assert not history.put("k", 1) and not history.can_undo
    history.reset()
    assert not history.can_undo


def test_the_past_is_bounded():
    history = History({"k": 0}, clock=iter(range(0, 10**6, 5)).__next__)
    for value in range(1, DEPTH + 50):
        history.put("k", value)
    steps = 0
    while history.undo():
        steps += 1
    assert steps == DEPTH


def test_the_first_mark_is_drawn_at_once_and_the_next_only_after_the_interval():
    drawn: list[int] = []
    writer = Coalescer(lambda: drawn.append(1), interval_s=10 * LONG_S)
    writer.mark()
    until(lambda: drawn)  # long before the interval is over
    writer.mark()
    writer.close()
    assert len(drawn) == 1


def test_many_marks_are_drawn_few_times_and_the_last_state_always():
    drawn: list[float] = []
    writer = Coalescer(lambda: drawn.append(time.monotonic()), interval_s=0.1)
    begun = time.monotonic()
    while len(drawn) < 4:
        writer.mark()
        marked = time.monotonic()
        assert marked < begun + LONG_S, drawn
        time.sleep(0.002)
    until(lambda: drawn[-1] >= marked)
    writer.close()
    assert len(drawn) <= 2 + (time.monotonic() - begun) / 0.1


def test_drawing_goes_on_after_an_error_and_ends_with_close(caplog):
    calls = []

    def flush():
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise ValueError("no figure")

    writer = Coalescer(flush, interval_s=0.01)
    for count in (1, 2):
        writer.mark()
        until(lambda count=count: len(calls) == count)
    writer.close()
    assert len(calls) == 2 and "could not draw" in caplog.text
    writer.mark()
    time.sleep(0.03)
    assert len(calls) == 2
