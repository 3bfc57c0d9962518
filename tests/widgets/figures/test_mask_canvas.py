"""The mask canvas driven as a person would: brush, rectangle, lasso, keys, and slow answers."""

from __future__ import annotations

import numpy as np
import pytest

from widgets import theme
from widgets.figures import mask_image as images
from widgets.views import esm

pytestmark = pytest.mark.browser
STRIP_PX = 22


def state(rows: int = 8, columns: int = 10, kept=None, **more):
    weights = np.linspace(0.1, 1, rows * columns).reshape(rows, columns)
    mask = np.ones((rows, columns), bool) if kept is None else kept
    image = images.mask_image(weights, mask, "q_proj")
    return {"data": {**images.canvas_data(image), **more}}


def at(view, row: float, column: float, rows: int = 8, columns: int = 10) -> tuple[float, float]:
    """The middle of a cell on the page; row ``rows`` is the strip."""
    box = view.page.locator(".stage").bounding_box()
    high = box["height"] - STRIP_PX
    y = high + 10 if row >= rows else (row + 0.5) * high / rows
    return box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + y


def drag(view, *cells, shift: bool = False) -> None:
    mouse = view.page.mouse
    if shift:
        view.page.keyboard.down("Shift")
    mouse.move(*at(view, *cells[0]))
    mouse.down()
    for cell in cells[1:]:
        mouse.move(*at(view, *cell), steps=3)
    mouse.up()
    if shift:
        view.page.keyboard.up("Shift")


def press(view, *keys: str) -> None:
    for key in keys:
        view.page.keyboard.press(key)


def pixel(view, row: int, column: int) -> list[int]:
    """Mean colour around a cell's middle, so that the hatch counts by its share."""
    view.drawn()
    x, y = at(view, row, column)
    return view.page.evaluate(
        "([x, y]) => { const c = document.querySelector('.stage canvas');"
        " const b = c.getBoundingClientRect(), s = c.width / b.width;"
        " const d = c.getContext('2d').getImageData((x - b.left) * s - 5, (y - b.top) * s - 5,"
        " 10, 10).data; const m = [0, 0, 0];"
        " for (let i = 0; i < d.length; i += 4) for (let k = 0; k < 3; k += 1)"
        " m[k] += d[i + k] / (d.length / 4); return m }",
        [x, y],
    )


def is_pruned(view, row: int, column: int) -> bool:
    red, _, blue = pixel(view, row, column)
    return red > blue  # orange, else blue


def test_a_stroke_is_one_event_with_the_cells_under_it(stage):
    view = stage(esm.MASK, state())
    drag(view, (2, 1), (2, 4))
    row = [[2, column] for column in range(1, 5)]
    assert view.said() == [{"kind": "paint", "keep": False, "cells": row}]
    assert [is_pruned(view, 2, c) for c in (0, 1, 4, 5)] == [False, True, True, False]
    assert view.page.inner_text(".said") == "4 cells pruned"
    drag(view, (2, 1), (2, 4))
    assert len(view.events) == 1, "cells that are pruned already are not told again"


def test_a_fast_stroke_leaves_no_holes(stage):
    view = stage(esm.MASK, state())
    mouse = view.page.mouse
    mouse.move(*at(view, 0, 0))
    mouse.down()
    mouse.move(*at(view, 7, 7))  # one single move
    mouse.up()
    assert view.said()[0]["cells"] == [[n, n] for n in range(8)]


def test_shift_and_the_switch_restore(stage):
    view = stage(esm.MASK, state())
    drag(view, (1, 1), (1, 3))
    drag(view, (1, 2), (1, 2), shift=True)
    view.page.get_by_role("button", name="Restore").click()
    drag(view, (1, 3), (1, 3))
    drag(view, (1, 3), (1, 3), shift=True)
    told = [(event["keep"], event["cells"]) for event in view.said()]
    assert told[1:] == [(True, [[1, 2]]), (True, [[1, 3]]), (False, [[1, 3]])]
    assert not is_pruned(view, 1, 2) and is_pruned(view, 1, 1)


def test_a_wide_brush_stops_at_the_edge(stage):
    view = stage(esm.MASK, state())
    view.page.get_by_role("group", name="Brush size").get_by_text("3").click()
    drag(view, (0, 0), (0, 0))
    assert view.said()[0]["cells"] == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_rectangle_and_lasso(stage):
    view = stage(esm.MASK, state())
    view.page.get_by_role("button", name="Rectangle").click()
    drag(view, (5, 6), (4, 3))
    block = [[row, column] for row in (4, 5) for column in range(3, 7)]
    assert view.said()[-1]["cells"] == block
    view.page.get_by_role("button", name="Lasso").click()
    drag(view, (-0.4, -0.4), (-0.4, 3.4), (3.4, -0.4), shift=False)
    cells = view.said()[-1]["cells"]
    assert [0, 0] in cells and [0, 2] in cells and [2, 0] in cells
    assert [3, 3] not in cells and [2, 2] not in cells, "outside of the triangle"


def test_the_strip_paints_whole_columns(stage):
    view = stage(esm.MASK, state())
    drag(view, (8, 2), (8, 3))
    assert view.said()[0]["cells"] == [[row, column] for row in range(8) for column in (2, 3)]


def test_keys_do_all_of_it(stage):
    view = stage(esm.MASK, state(), still=True)
    view.page.locator(".stage").focus()
    press(view, "ArrowDown", "ArrowRight", "ArrowRight", "Space")
    assert {"kind": "select", "row": 1, "column": 2} == view.said()[-2], "told before the paint"
    assert view.said()[-1] == {"kind": "paint", "keep": False, "cells": [[1, 2]]}
    press(view, "Shift+Space")
    assert view.said()[-1] == {"kind": "paint", "keep": True, "cells": [[1, 2]]}
    press(view, "x", "Shift+Space")
    assert view.said()[-1] == {"kind": "paint", "keep": False, "cells": [[1, 2]]}
    press(view, "x", "r", "Space", "ArrowDown", "ArrowRight", "Space")
    assert view.said()[-1]["cells"] == [[1, 3], [2, 2], [2, 3]], "a rectangle of two corners"
    press(view, "b", "+", "End", "Space")
    assert view.said()[-1]["cells"] == [[r, c] for r in (1, 2, 3) for c in (8, 9)]
    count = len(view.said())
    press(view, "r", "Space", "Escape", "Home")
    view.pass_ms(250)
    assert [event["kind"] for event in view.said()[count:]] == ["select"], "cancelled"


def test_a_walk_is_told_before_what_is_painted_at_its_end(stage):
    view = stage(esm.MASK, state(), still=True)
    view.page.locator(".stage").focus()
    press(view, "ArrowRight", "ArrowRight", "Space")
    end = {"kind": "select", "row": 0, "column": 2}
    paint = {"kind": "paint", "keep": False, "cells": [[0, 2]]}
    assert view.said() == [end, paint]
    view.pass_ms(1000)
    assert view.said() == [end, paint], "once"


def test_looking_selects_and_walking_tells_only_where_it_ends(stage):
    view = stage(esm.MASK, state(row_label="head", column_label="neuron"), still=True)
    view.page.get_by_role("button", name="Look").click()
    view.page.mouse.click(*at(view, 3, 4))
    assert view.said() == [{"kind": "select", "row": 3, "column": 4}]
    assert view.page.inner_text(".said").startswith("head 3, neuron 4 · kept · |w| ")
    press(view, "ArrowRight", "ArrowRight", "ArrowUp")
    assert len(view.said()) == 1
    view.pass_ms(250)
    assert view.said()[1:] == [{"kind": "select", "row": 2, "column": 6}]


def test_what_is_binned_says_which_weights_it_holds(stage):
    image = images.mask_image(np.ones((32, 40)), np.ones((32, 40), bool), "w", most=(8, 10))
    view = stage(esm.MASK, {"data": images.canvas_data(image)})
    view.page.mouse.move(*at(view, 1, 2))
    assert view.page.inner_text(".said").startswith("output 4–7, input 8–11 · kept")


def test_shares_and_ones_are_both_understood(stage):
    kept = np.arange(80).reshape(8, 10) % 2 == 0
    ones = state(kept=kept)
    ones["data"]["kept"] = [int(v) for v in kept.ravel()]
    for given in (ones, state(kept=kept)):
        view = stage(esm.MASK, given)
        assert not is_pruned(view, 3, 4) and is_pruned(view, 3, 5)
    half = state()
    half["data"]["kept"] = [255] * 79 + [51]
    view = stage(esm.MASK, half)
    view.page.mouse.move(*at(view, 7, 9))
    assert "20 % kept" in view.page.inner_text(".said")


def test_a_late_answer_does_not_wipe_a_fresh_stroke(stage):
    view = stage(esm.MASK, state(), still=True)
    drag(view, (1, 1), (1, 1))
    drag(view, (2, 2), (2, 2))
    first = np.ones((8, 10), bool)
    first[1, 1] = False
    view.set("data", state(kept=first)["data"])  # the answer to the first stroke alone
    assert is_pruned(view, 1, 1) and is_pruned(view, 2, 2)
    first[2, 2] = False
    view.set("data", state(kept=first)["data"])
    view.set("data", state()["data"])  # everything is undone
    assert not is_pruned(view, 1, 1) and not is_pruned(view, 2, 2)


def test_a_stroke_that_is_never_answered_is_taken_back(stage):
    view = stage(esm.MASK, state(), still=True)
    drag(view, (1, 1), (1, 1))
    view.pass_ms(2400)
    assert is_pruned(view, 1, 1)
    view.pass_ms(300)
    assert not is_pruned(view, 1, 1), "the kernel's word counts in the end"


def test_escape_takes_back_a_stroke_under_way(stage):
    view = stage(esm.MASK, state())
    view.page.mouse.move(*at(view, 1, 1))
    view.page.mouse.down()
    view.page.mouse.move(*at(view, 1, 5), steps=3)
    assert is_pruned(view, 1, 3)
    press(view, "Escape")
    view.page.mouse.up()
    assert view.said() == [] and not is_pruned(view, 1, 3)


def test_empty_and_one_cell(stage):
    empty = stage(esm.MASK, {"data": {}})
    assert "no weights yet" in empty.page.inner_text("body")
    empty.page.locator(".stage").click()
    press(empty, "ArrowDown", "Space")
    assert empty.said() == []
    one = stage(esm.MASK, state(1, 1))
    one.page.locator(".stage").click(position={"x": 20, "y": 20})
    assert one.said() == [{"kind": "paint", "keep": False, "cells": [[0, 0]]}]


# What 30 moves of the brush ask of the canvases: in the events themselves, and in the dearest frame
# after one. Counted and not timed, so a busy machine changes nothing.
MOVES = """async () => {
  const stage = document.querySelector('.stage'), box = stage.getBoundingClientRect();
  const fire = (kind, x, y) => stage.dispatchEvent(new PointerEvent(kind,
    { clientX: box.left + x, clientY: box.top + y, pointerId: 1, bubbles: true }));
  stage.setPointerCapture = () => {};
  let calls = 0;
  const pen = CanvasRenderingContext2D.prototype;
  for (const name of Object.getOwnPropertyNames(pen)) {
    const own = Object.getOwnPropertyDescriptor(pen, name).value;
    if (typeof own === 'function') pen[name] = function (...given) {
      calls += 1; return own.apply(this, given); };
  }
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  fire('pointerdown', 5, 5);
  let atOnce = 0, most = 0;
  for (let i = 0; i < 30; i += 1) {
    calls = 0;
    fire('pointermove', 5 + i * 30, 5 + (i % 6) * 30);
    atOnce += calls;
    await frame();
    most = Math.max(most, calls);
  }
  fire('pointerup', 5, 5);
  return [atOnce, most];
}"""


def test_a_full_canvas_paints_smoothly_and_the_outbox_stays_small(stage):
    weights = np.random.default_rng(1).normal(size=(64, 320))
    image = images.mask_image(weights, np.ones(weights.shape, bool), "w")
    view = stage(esm.MASK, {"data": images.canvas_data(image)}, height=320)
    at_once, calls = view.page.evaluate(MOVES)
    assert at_once == 0, "a move waits for its frame"
    assert 0 < calls < 2 * (64 + 320), "a frame draws lines and images, not each of 20 480 cells"
    view.page.get_by_role("button", name="Rectangle").click()
    for turn in range(12):
        drag_all(view, shift=turn % 2 == 0)
    cells = [len(event["cells"]) for event in view.events]
    assert len(view.events) >= 4 and sum(cells) <= 40_000 + max(cells) * 4
    assert max(cells) == 64 * 320 and sum(cells[:-4]) <= 40_000


def drag_all(view, shift: bool) -> None:
    box = view.page.locator(".stage").bounding_box()
    mouse, keys = view.page.mouse, view.page.keyboard
    if shift:
        keys.down("Shift")
    mouse.move(box["x"] + 1, box["y"] + 1)
    mouse.down()
    mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - STRIP_PX - 2)
    mouse.up()
    if shift:
        keys.up("Shift")


@pytest.mark.parametrize(("dark", "paper"), [(False, theme.LIGHT), (True, theme.DARK)])
def test_it_wears_the_colours_of_its_host(stage, dark, paper):
    view = stage(esm.MASK, state(), dark=dark, width=340)
    strong = pixel(view, 7, 9)
    wanted = [int(paper.accent[i : i + 2], 16) for i in (1, 3, 5)]
    assert strong == pytest.approx(wanted, abs=14)
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= 340


def test_a_closed_canvas_leaves_nothing_behind(stage):
    view = stage(esm.MASK, state())
    view.page.evaluate("() => window.leave()")
    assert view.page.evaluate("() => model.listeners()") == 0
