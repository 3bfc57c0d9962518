"""The static twin of the decode lab: what a page without a kernel shows, from the same trace."""

from __future__ import annotations

from html import escape

from widgets import theme
from widgets.figures import acceptance_map, accepted_length, draft_tree, node_law, token_stream
from widgets.labs import frame
from widgets.labs.decode.lab_view import LabView
from widgets.labs.decode.numbers import speed_html

LINES = 14  # of the stream; a notebook keeps this for ever

TWIN_CSS = """
.dw-twin { padding: 12px 16px; border: 1px solid var(--dw-rule); }
.dw-twin .dw-row-of { display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: flex-start; }
.dw-twin svg { max-width: 100%; height: auto; }
"""


def twin_html(view: LabView) -> str:
    """Stream, tree, laws, charts and numbers of the run that is shown."""
    head = frame.head_html("Decode lab", view.model_line)
    style = f"<style>{theme.css()}{frame.TEXT_CSS}{TWIN_CSS}</style>"
    trace, at = view.trace, view.selection
    if trace is None or not trace.rounds:
        note = "Nothing was generated when this page was saved; run the cell to open the lab."
        body = f'<p class="dw-note">{note}</p>'
    else:
        stream = token_stream.svg(token_stream.info(trace, at), width=1040, most_lines=LINES)
        tree = draft_tree.svg(draft_tree.info(trace, at))
        law = node_law.svg(node_law.info(trace, at))
        levels = acceptance_map.svg(acceptance_map.info(trace, at))
        lengths = accepted_length.svg(accepted_length.info(trace, at))
        numbers = f'<div style="max-width:330px">{speed_html(trace, "finished")}</div>'
        body = (
            f"<div>{stream}</div>"
            f'<div class="dw-row-of">{tree}{law}</div>'
            f'<div class="dw-row-of">{levels}{lengths}{numbers}</div>'
            f'<p class="dw-note">{escape(NOTE)}</p>'
        )
    return f'<div class="dw dw-twin">{style}<div>{head}</div>{body}</div>'


NOTE = "A snapshot. Run the cell to pause, step, click and change knobs."
