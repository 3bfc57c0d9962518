"""A board as a value that a notebook shows: the live widgets, and HTML where there is no kernel."""

from __future__ import annotations

from html import escape
from typing import Any

from widgets.labs import frame
from widgets.labs.board import Board


class BoardLab:
    """Holds a board; its widgets are built when it is first shown."""

    def __init__(self, controller: Board):
        self.controller = controller
        self._view: Any = None

    @property
    def view(self) -> Any:
        """The ipywidgets view."""
        if self._view is None:
            from widgets.labs.board_jupyter import BoardJupyter

            self._view = BoardJupyter(self.controller)
        return self._view

    def set(self, key: str, value: Any) -> bool:
        """Change a setting as the form would; False (and a message in the lab) if it is refused."""
        return self.controller.change(key, value)

    def close(self) -> None:
        """Stop what runs and take the lab off the page."""
        self.controller.close()
        if self._view is not None:
            self._view.close()

    def __repr__(self) -> str:
        return f"<{self.controller.title}>"

    def twin_html(self) -> str:
        """What a page without a kernel shows: the head and every block that is text."""
        contents = self.controller.contents()
        cells = [cell for band in self.controller.bands for cell in band if cell.kind == "html"]
        body = "".join(contents[cell.name] for cell in cells)
        sheet = f"<style>{frame.css()}</style>"
        return f'<div class="dw">{sheet}<h3>{escape(self.controller.title)}</h3>{body}</div>'

    def _repr_mimebundle_(self, **options: Any) -> Any:
        live = self.view.widget._repr_mimebundle_(**options)
        bundle, metadata = live if isinstance(live, tuple) else (live, {})
        twin = {"text/plain": repr(self), "text/html": self.twin_html()}
        return {**(bundle or {}), **twin}, metadata
