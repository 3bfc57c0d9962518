"""A board as a page of the dashboard: Panel's own widgets over the board's controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas  # noqa: F401 - plotly fails on one that another thread has begun to import
import panel as pn

from widgets import theme
from widgets.controls.panel_form import Row
from widgets.labs.board import Board, Changes, placed
from widgets.labs.board_form import BoardForm
from widgets.labs.coalesce import Coalescer
from widgets.labs.decode.panel import BUTTON_CSS, FILE_CSS, html
from widgets.views.clicks import customdata
from widgets.views.outbox import drain
from widgets.views.panel import DraftTreeView, LawBarsView, MaskCanvasView, TokenStreamView

VIEWS = {
    "bars": LawBarsView,
    "tree": DraftTreeView,
    "stream": TokenStreamView,
    "canvas": MaskCanvasView,
}


def heading(title: str) -> pn.pane.HTML:
    """The name of a section of the form."""
    return html(f'<h3 class="dw-title">{title}</h3>', margin=(9, 0, 3, 0))


class BoardPanel:
    """One browser session's view of one board.

    Args:
        board: the lab.
        schedule: runs a function where the document may be changed; None calls it directly.
        mode: ``light`` or ``dark`` for the figures; the rest follows the browser by itself.
    """

    def __init__(
        self,
        board: Board,
        schedule: Callable[[Callable[[], None]], Any] | None = None,
        mode: str = "light",
    ):
        self.board, self.mode = board, mode
        self._schedule = schedule or (lambda work: work())
        self._changes, self._seen = Changes(), {}
        self._widths_px: dict[str, int] = {}
        self.html = {name: html() for name in ("head", "progress", "error")}
        self.cells = {cell.name: self._cell(cell) for band in board.bands for cell in band}
        self.buttons = {
            verb: self._button(verb, label)
            for verb, label in {**board.buttons, **board.knobs}.items()
        }
        self.form_rows = BoardForm(board, Row, heading)
        self.form = pn.Column(margin=0, sizing_mode="stretch_width", styles={"gap": "2px"})
        self._writer = Coalescer(lambda: self._schedule(self.flush))
        board.listen(self._writer.mark)
        self.flush()

    def _cell(self, cell: Any) -> Any:
        if cell.kind == "html":
            return html()
        if cell.kind == "plot":
            pane = pn.pane.Plotly(None, sizing_mode="stretch_both", margin=0)
            pane.param.watch(lambda e, name=cell.name: self._clicked(name, e.new), "click_data")
            return pane
        view = VIEWS[cell.kind](sizing_mode="stretch_both", margin=0, box_px=0, mode=self.mode)
        self._seen[cell.name] = 0
        view.param.watch(lambda e, name=cell.name: self._events(name, e.new), "outbox")
        return view

    def _button(self, verb: str, label: str) -> pn.widgets.Button:
        kind = "primary" if verb == next(iter(self.board.buttons), "") else "default"
        look = {"stylesheets": [BUTTON_CSS], "margin": 0, "align": "center"}
        button = pn.widgets.Button(label=label, color=kind, **look)
        button.on_click(lambda _: getattr(self.board, verb)())
        return button

    def side(self) -> pn.Column:
        """The left column."""
        rows: list[Any] = [self.form]
        if self.board.accepts:
            upload = pn.widgets.FileInput(
                accept=self.board.accepts,
                margin=0,
                sizing_mode="stretch_width",
                stylesheets=[FILE_CSS],
            )
            upload.param.watch(
                lambda e: e.new and self.board.open(e.new, upload.filename or "the file"), "value"
            )
            label = getattr(self.board, "opens", "Open a saved trace").lower()
            rows += [html(f'<span class="dw-small">{label}</span>'), upload]
        return pn.Column(*rows, margin=0, sizing_mode="stretch_width", styles={"gap": "2px"})

    def foot(self) -> pn.Column:
        """What stays in reach and in sight below the settings, however many there are."""
        knobs = [self.buttons[verb] for verb in self.board.knobs]
        line = pn.Row(*knobs, margin=0, styles={"gap": "4px", "flex-wrap": "wrap"})
        return pn.Column(self.html["error"], line, margin=0, sizing_mode="stretch_width")

    def roots(self) -> dict[str, Any]:
        """Name -> what the page's template puts there."""
        run = [self.buttons[verb] for verb in self.board.buttons]
        return {
            "head": self.html["head"],
            "buttons": pn.Row(*run, margin=0, styles={"gap": "6px 10px", "flex-wrap": "wrap"}),
            "progress": self.html["progress"],
            "side": self.side(),
            "foot": self.foot(),
            **{f"cell_{name}": pane for name, pane in self.cells.items()},
        }

    # ---- from the browser ----------------------------------------------------------------------

    def _events(self, name: str, outbox: list) -> None:
        events, self._seen[name] = drain(outbox, self._seen[name])
        for event in events:
            self.board.handle(name, event)

    def _clicked(self, name: str, data: Any) -> None:
        points = (data or {}).get("points") or [{}]
        found = customdata(self.cells[name].object or {}, points[0])
        self.board.handle(name, {"kind": "point", "customdata": found})

    # ---- to the browser ------------------------------------------------------------------------

    def flush(self) -> None:
        """Draw what changed; called where the document may be changed."""
        controls = self.form_rows.controls()
        if list(self.form.objects) != controls:
            self.form.objects = controls
        for name, value in self._changes.of(placed(self.board.contents(), self._widths_px)):
            if name in self.html:
                self.html[name].object = value
            elif isinstance(self.cells.get(name), pn.pane.HTML):
                self.cells[name].object = value
            elif isinstance(self.cells.get(name), pn.pane.Plotly):
                self.cells[name].object = theme.in_mode(value, self.mode)
            elif name in self.cells:
                self.cells[name].param.update(**value)
        verbs = self.board.verbs()
        for verb, button in self.buttons.items():
            button.disabled = verb not in verbs
        self.form_rows.put()

    def widen(self, widths_px: Mapping[str, int]) -> None:
        """Lay the charts out for places so wide; by names of cells."""
        charts = {name for name, cell in self.cells.items() if isinstance(cell, pn.pane.Plotly)}
        self._widths_px = {name: px for name, px in widths_px.items() if name in charts}
        self.flush()

    def darken(self, dark: bool) -> None:
        """Redraw the figures for a dark or a light page."""
        wanted = "dark" if dark else "light"
        if wanted == self.mode:
            return
        self.mode, self._changes = wanted, Changes()
        for view in self.cells.values():
            if hasattr(view, "box_px"):
                view.mode = wanted
        self.flush()

    def close(self) -> None:
        """The session is gone: stop what runs and its thread."""
        self.board.close()
        self._writer.close(0.0)
