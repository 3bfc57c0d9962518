"""A board in JupyterLab: ipywidgets and the ESM views over the board's controller."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw

from widgets.controls.ipywidgets_form import Row
from widgets.labs import frame
from widgets.labs.board import Board, Cell, Changes, placed
from widgets.labs.board_form import BoardForm
from widgets.labs.coalesce import Coalescer
from widgets.labs.decode.jupyter import box, html, title
from widgets.labs.jupyter_css import JUPYTER_CSS
from widgets.views.jupyter import (
    DraftTreeView,
    LawBarsView,
    MaskCanvasView,
    PlotView,
    TokenStreamView,
    plotly_lib,
)
from widgets.views.outbox import drain

VIEWS = {
    "plot": PlotView,
    "bars": LawBarsView,
    "tree": DraftTreeView,
    "stream": TokenStreamView,
    "canvas": MaskCanvasView,
}


class BoardJupyter:
    """The widgets of one board."""

    def __init__(self, board: Board):
        self.board = board
        self._changes, self._seen = Changes(), {}
        self.html = {name: html() for name in ("head", "progress", "error")}
        self.cells = {cell.name: self._cell(cell) for band in board.bands for cell in band}
        self.buttons = {
            verb: self._button(verb, label)
            for verb, label in {**board.buttons, **board.knobs}.items()
        }
        self.form_rows = BoardForm(board, Row, title)
        self.form = box([], "dw-form")
        self.widget = self._frame()
        self.flush()
        self._writer = Coalescer(self.flush)
        board.listen(self._writer.mark)

    def _cell(self, cell: Cell) -> Any:
        if cell.kind == "html":
            return html()
        view = VIEWS[cell.kind](box_px=cell.px)
        self._seen[cell.name] = 0
        view.observe(lambda c, name=cell.name: self._events(name, c["new"]), names="outbox")
        if cell.kind == "plot":
            view.observe(lambda _: self._writer.mark(), names="width_px")
        return view

    def _button(self, verb: str, label: str) -> ipw.Button:
        button = ipw.Button(description=label, layout=ipw.Layout(width="auto", margin="0"))
        button.add_class("dw-button")
        if verb == next(iter(self.board.buttons), ""):
            button.add_class("dw-primary")
        button.on_click(lambda _: getattr(self.board, verb)())
        return button

    def _side(self) -> ipw.Box:
        rows: list[Any] = [self.form]
        if self.board.accepts:
            wide = ipw.Layout(width="auto", margin="0")
            upload = ipw.FileUpload(
                accept=self.board.accepts,
                description=getattr(self.board, "opens", "Open a saved trace"),
                layout=wide,
            )
            upload.add_class("dw-button")
            upload.observe(self._opened, names="value")
            rows.append(upload)
        knobs = [self.buttons[verb] for verb in self.board.knobs]
        line = box(knobs, "dw-line", "dw-board-knobs", row=True)
        foot = box([self.html["error"], line], "dw-foot")
        return box([box(rows, "dw-knobs"), foot], "dw-side")

    def _frame(self) -> ipw.Box:
        run = [self.buttons[verb] for verb in self.board.buttons]
        head = box([self.html["head"], *run, self.html["progress"]], "dw-head", row=True)
        bands = []
        for band in self.board.bands:
            cells = []
            for cell in band:
                look = ["dw-cell", *(["dw-block"] if cell.kind == "html" else [])]
                made = box([self.cells[cell.name]], *look)
                made.layout.flex = f"{cell.share} 1 {260 * cell.share:.0f}px"
                if cell.held_px:
                    made.layout.max_height = f"{cell.held_px}px"
                cells.append(made)
            bands.append(box(cells, "dw-band", "dw-board-band", row=True))
        grid = box([head, self._side(), box(bands, "dw-main", "dw-board")], "dw-grid")
        sheet = ipw.HTML(
            f"<style>{frame.css()}{JUPYTER_CSS}</style>", layout=ipw.Layout(display="none")
        )
        return box([sheet, plotly_lib(), grid], "dw", "dw-lab", "dw-in-jupyter")

    def _opened(self, change: dict) -> None:
        for file in change["new"]:
            self.board.open(bytes(file["content"]), file["name"])

    def _events(self, name: str, outbox: list) -> None:
        events, self._seen[name] = drain(outbox, self._seen[name])
        for event in events:
            self.board.handle(name, event)

    def flush(self) -> None:
        """Draw what changed."""
        controls = self.form_rows.controls()
        if list(self.form.children) != controls:
            self.form.children = controls
        plots = {name: cell for name, cell in self.cells.items() if isinstance(cell, PlotView)}
        widths_px = {name: plot.width_px for name, plot in plots.items()}
        for name, value in self._changes.of(placed(self.board.contents(), widths_px)):
            pane = self.html.get(name, self.cells.get(name))
            if isinstance(pane, ipw.HTML):
                pane.value = value
            elif isinstance(pane, PlotView):
                pane.fig = value
            elif pane is not None:
                for field, data in value.items():
                    setattr(pane, field, data)
        verbs = self.board.verbs()
        for verb, button in self.buttons.items():
            button.disabled = verb not in verbs
        self.form_rows.put()

    def close(self) -> None:
        """Stop the writer and take the widgets off the page."""
        self._writer.close()
        self.widget.close()
