"""What a lab without a live run is made of, for either host: forms, buttons, bands of cells.

*Idea*: a board says what it shows and what it can be told; the hosts place it. So such a lab is one
controller without any UI library, and looks the same in the dashboard and in JupyterLab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from widgets.controls.form import Field
from widgets.figures.chart_parts import fitted

Kind = Literal["html", "plot", "bars", "tree", "stream", "canvas"]


class Cell(NamedTuple):
    """One place of the middle.

    Args:
        name: key of its content.
        kind: ``html`` takes HTML, ``plot`` a plotly dict in the light palette, the others the data
            of the view of that name.
        px: height where the host does not fill a screen.
        share: part of its band's width.
        held_px: ``html`` scrolls within so much where the host does not fill a screen; 0 = never.
    """

    name: str
    kind: Kind
    px: int = 220
    share: float = 1.0
    held_px: int = 0


class Section(NamedTuple):
    """A titled part of the left column."""

    title: str
    fields: tuple[Field, ...]


class Board(Protocol):
    """A controller that a host can draw. Every method may be called from any thread.

    ``sections`` may change with the settings; the hosts then build the form again. An optional
    ``opens`` says what kind of file is opened.
    """

    title: str
    buttons: Mapping[str, str]  # verb -> label, above; each verb is a method
    knobs: Mapping[str, str]  # verb -> label, under the forms
    bands: tuple[tuple[Cell, ...], ...]
    accepts: str  # of files that can be opened, e.g. ".json"; empty = none

    @property
    def sections(self) -> tuple[Section, ...]: ...

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        """Field -> choice -> what people read."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def contents(self) -> dict[str, Any]:
        """Cell -> what it shows now; also ``head``, ``progress`` and ``error`` (HTML)."""
        ...

    def verbs(self) -> frozenset[str]: ...

    def change(self, key: str, value: Any) -> bool: ...

    def handle(self, cell: str, event: Mapping[str, Any]) -> None: ...

    def open(self, data: bytes, name: str) -> bool: ...

    def listen(self, listener: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


def placed(contents: Mapping[str, Any], widths_px: Mapping[str, int]) -> dict[str, Any]:
    """The contents with their charts laid out for the widths of their places, as far as known."""
    return {
        name: fitted(value, widths_px[name]) if name in widths_px else value
        for name, value in contents.items()
    }


class Changes:
    """Hands out the contents that are not what they were."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def of(self, contents: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The new ones; each counts as shown once the next is asked for.

        So what fails to be drawn, and all behind it, is handed out again the next time.
        """
        for name, value in contents.items():
            if name not in self._last or self._last[name] != value:
                yield name, value
                self._last[name] = value
