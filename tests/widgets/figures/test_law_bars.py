"""The bars of p and q as a person moves them, with a kernel that answers late or not at all."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from widgets.views import esm

pytestmark = pytest.mark.browser
LAWS = {"title": "Laws", "labels": ["a", "b", "c"], "p": [0.5, 0.3, 0.2], "q": [0.2, 0.4, 0.4]}


def bar(view, name: str = "draft probability of b"):
    return view.page.get_by_role("slider", name=name)


def shows(view, value: str, name: str = "draft probability of b") -> None:
    expect(bar(view, name)).to_have_attribute("aria-valuenow", value)


def press(view, *keys: str) -> None:
    bar(view).focus()
    for key in keys:
        view.page.keyboard.press(key)


def test_a_bar_that_was_taken_back_before_it_was_answered_stands_where_it_stood(stage):
    view = stage(esm.BARS, {"data": LAWS}, still=True)
    press(view, "ArrowUp")
    shows(view, "0.420")
    # The kernel has undone it at once: nothing is new to it, so it says nothing.
    view.pass_ms(700)
    shows(view, "0.400")


def test_keys_add_up_without_waiting_for_answers(stage):
    view = stage(esm.BARS, {"data": LAWS}, still=True)
    press(view, "ArrowUp", "ArrowUp", "PageUp")
    shows(view, "0.540")
    assert [event["value"] for event in view.said(3)] == [0.42, 0.44, 0.54]


def test_a_late_answer_moves_no_bar_back_and_an_undo_after_the_answer_does(stage):
    view = stage(esm.BARS, {"data": LAWS}, still=True)
    press(view, "ArrowUp", "ArrowUp")
    view.set("data", {**LAWS, "q": [0.1933, 0.42, 0.3867]})  # to the first key
    shows(view, "0.440")
    shows(view, "0.193", "draft probability of a")
    view.set("data", {**LAWS, "q": [0.1867, 0.44, 0.3733]})  # to the second
    view.set("data", LAWS)  # undone
    shows(view, "0.400")


def test_a_drag_is_told_while_it_lasts_and_keeps_its_end(stage):
    view = stage(esm.BARS, {"data": LAWS}, still=True)
    box = bar(view).bounding_box()
    middle, mouse = box["x"] + box["width"] / 2, view.page.mouse
    mouse.move(middle, box["y"] + box["height"] * 0.5)
    mouse.down()
    for share in (0.4, 0.3, 0.2):
        mouse.move(middle, box["y"] + box["height"] * share)
        view.pass_ms(100)
    told = [event["value"] for event in view.said(4)]
    assert told == sorted(told) and len(set(told)) == 4
    view.set("data", {**LAWS, "q": [0.3, 0.1, 0.6]})
    shows(view, f"{told[-1]:.3f}")
    mouse.up()
    view.pass_ms(50)
    shows(view, f"{view.said()[-1]['value']:.3f}")
    view.pass_ms(700)  # no answer: the kernel's word holds
    shows(view, "0.100")
