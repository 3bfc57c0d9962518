"""Charts are laid out for the width that the browser says their place has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from bare_board import BareBoard

from widgets.figures import curves
from widgets.figures.curves import Curves, Line
from widgets.labs.board import Cell
from widgets.labs.board_jupyter import BoardJupyter
from widgets.labs.board_panel import BoardPanel

NOTE = "a sentence of some sixty letters that has to wrap where it is narrow"
LINES = tuple(Line(f"criterion {n}", (0.0, 0.5), (1.0, 2.0)) for n in range(7))


class Charts(BareBoard):
    """A board of two charts and a text."""

    bands = ((Cell("left", "plot"), Cell("right", "plot"), Cell("text", "html")),)

    def contents(self):
        figure = curves.figure(Curves("Loss", "share", "nats", LINES, None, NOTE))
        return {"left": figure, "right": figure, "text": "words"}


def lines(figure) -> int:
    """Of the heading."""
    return figure["layout"]["title"]["text"].count("<br>") + 1


@pytest.fixture
def panel():
    view = BoardPanel(Charts())
    yield view
    view.close()


@pytest.fixture
def jupyter():
    view = BoardJupyter(Charts())
    yield view
    view.close()


def test_in_panel_by_what_the_page_tells(panel):
    left, right = panel.cells["left"], panel.cells["right"]
    assert [lines(left.object), lines(right.object)] == [3, 3]
    panel.widen({"left": 640, "right": 340, "text": 200, "gone": 100})
    assert [lines(left.object), lines(right.object)] == [2, 3]
    panel.widen({"left": 340, "right": 640, "text": 200})
    assert [lines(left.object), lines(right.object)] == [3, 2]


def test_in_panel_the_dark_keeps_the_width(panel):
    panel.widen({"left": 640})
    panel.darken(True)
    assert lines(panel.cells["left"].object) == 2


def test_in_jupyter_by_what_the_view_tells(jupyter):
    left, right = jupyter.cells["left"], jupyter.cells["right"]
    assert [lines(left.fig), lines(right.fig)] == [3, 3]
    left.width_px = 640
    jupyter.flush()
    assert [lines(left.fig), lines(right.fig)] == [2, 3]


def test_in_jupyter_a_told_width_asks_for_a_draw(jupyter):
    marked = []
    jupyter._writer.close()
    jupyter._writer = SimpleNamespace(mark=lambda: marked.append(1), close=lambda: None)
    jupyter.cells["left"].width_px = 640
    assert marked == [1]
