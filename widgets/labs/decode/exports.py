"""What can be taken out of the decode lab: the trace, its table, and every picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from widgets.figures import (
    acceptance_map,
    accepted_length,
    draft_tree,
    export,
    method_picture,
    node_law,
    speed,
    time_split,
    token_stream,
)
from widgets.labs.decode.lab_view import LabView
from workbench.core.errors import BadInput
from workbench.core.trace import Trace

PICTURES: dict[str, ModuleType] = {
    "Draft tree": draft_tree,
    "Node laws": node_law,
    "Acceptance map": acceptance_map,
    "Method's own picture": method_picture,
    "Accepted length": accepted_length,
    "Time of a round": time_split,
    "Speed": speed,
}


class Export(NamedTuple):
    """One entry of the menu; ``make(view)`` gives the file's bytes."""

    filename: str
    mime: str
    make: Callable[[LabView], bytes]


def _trace(view: LabView) -> Trace:
    if view.trace is None or not view.trace.rounds:
        raise BadInput("there is no run to save yet; press Start first")
    return view.trace


def _parquet(view: LabView) -> bytes:
    """The table of rounds (needs pandas and pyarrow)."""
    file = io.BytesIO()
    _trace(view).to_pandas().to_parquet(file)
    return file.getvalue()


def _picture(module: ModuleType, form: str) -> Callable[[LabView], bytes]:
    def make(view: LabView) -> bytes:
        if module is method_picture and not method_picture.kind_of(_trace(view)):
            raise BadInput("the methods of this run report nothing to draw; choose another picture")
        info: Any = module.info(_trace(view), view.selection)
        if form == "svg":
            return module.svg(info).encode()
        if form == "csv":
            return export.to_csv(module.rows(info)).encode()
        return export.to_html(module.figure(info)).encode()

    return make


def _stream(view: LabView) -> bytes:
    return export.to_csv(token_stream.rows(token_stream.info(_trace(view)))).encode()


def _kinds() -> dict[str, Export]:
    csv, svg, page = "text/csv", "image/svg+xml", "text/html"
    kinds = {
        "Trace (JSON)": Export("trace.json", "application/json", lambda v: _trace(v).to_json()),
        "Rounds (CSV)": Export(
            "rounds.csv", csv, lambda v: export.to_csv(_trace(v).to_rows()).encode()
        ),
        "Rounds (parquet)": Export("rounds.parquet", "application/vnd.apache.parquet", _parquet),
        "Tokens (CSV)": Export("tokens.csv", csv, _stream),
    }
    kinds["Token stream (SVG)"] = Export("tokens.svg", svg, _picture(token_stream, "svg"))
    for title, module in PICTURES.items():
        name = module.__name__.rsplit(".", 1)[-1]
        for form, mime in (("svg", svg), ("html", page), ("csv", csv)):
            kinds[f"{title} ({form.upper()})"] = Export(
                f"{name}.{form}", mime, _picture(module, form)
            )
    return kinds


KINDS = _kinds()


def export_bytes(kind: str, view: LabView) -> bytes:
    """The file of one menu entry for what the lab shows now.

    Raises:
        BadInput: nothing was generated yet.
    """
    return KINDS[kind].make(view)
