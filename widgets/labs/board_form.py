"""The rows of a board's form, kept from one look to the next, in either host's controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from widgets.controls.form import Field
from widgets.labs.board import Board, Section


class BoardForm:
    """Rows and headings by their names; a row that goes on stays as it is.

    A control put in anew would lose the focus, and a choice that is on its way from the page.

    Args:
        board: whose sections are shown.
        row: makes a row: ``row(field, value, changed, titles)``.
        heading: makes the heading of a section.
    """

    def __init__(self, board: Board, row: Callable[..., Any], heading: Callable[[str], Any]):
        self.board, self.rows = board, []
        self._make_row, self._make_heading = row, heading
        self._headings: dict[str, Any] = {}
        self._sections: tuple[Section, ...] = ()

    def controls(self) -> list[Any]:
        """What stands in the form, top down, for the fields that the board offers now."""
        sections = tuple(self.board.sections)
        if sections != self._sections:
            had = {row.field.key: row for row in self.rows}
            fields = [field for section in sections for field in section.fields]
            self._sections, self.rows = sections, [self._row(f, had.get(f.key)) for f in fields]
        left, shown = iter(self.rows), []
        for section in sections:
            shown.append(self._heading(section.title))
            shown += [next(left).widget for _ in section.fields]
        return shown

    def put(self) -> None:
        """The board's settings into the rows."""
        for row in self.rows:
            row.put(self.board.settings[row.field.key])

    def _heading(self, title: str) -> Any:
        if title not in self._headings:
            self._headings[title] = self._make_heading(title)
        return self._headings[title]

    def _row(self, field: Field, had: Any) -> Any:
        value, titles = self.board.settings[field.key], self.board.titles.get(field.key)
        if had is None or not had.goes_on(field, titles):
            return self._make_row(field, value, self.board.change, titles)
        had.become(field, value)
        return had
