"""The views as ipywidgets, for JupyterLab and every other front end of Jupyter widgets."""

from __future__ import annotations

from functools import cache

import anywidget
import traitlets as t

from widgets.views import esm
from widgets.views.static import StaticTwin

MODES = ("auto", "light", "dark")


class View(StaticTwin, anywidget.AnyWidget):
    """What all views share: events out, a colour mode, a height.

    Args:
        outbox: numbered events, newest last; read it with :func:`widgets.views.outbox.drain`.
        mode: ``auto`` follows the host.
        box_px: height in pixels; 0 fills the host's box.
    """

    outbox = t.List(t.Dict()).tag(sync=True)
    mode = t.Enum(MODES, "auto").tag(sync=True)
    box_px = t.Int(0, min=0).tag(sync=True)


class TokenStreamView(View):
    """Every token by its fate; ``data`` from :func:`widgets.figures.token_stream.stream_data`.

    Events: ``{kind: "token", round, node, index}``, ``{kind: "round", round}``. ``selected`` is the
    position of the round whose tokens are outlined, -1 = none; ``running`` makes it scroll along.
    ``tail`` holds further columns, to be shown after those of the ``data`` whose ``number`` is its
    ``of``: a growing stream need not be sent whole each time.
    """

    _esm = esm.source(esm.STREAM)
    data = t.Dict().tag(sync=True)
    tail = t.Dict().tag(sync=True)
    selected = t.Int(-1).tag(sync=True)
    running = t.Bool(False).tag(sync=True)
    box_px = t.Int(214, min=0).tag(sync=True)


class DraftTreeView(View):
    """The tree of one round; ``data`` from :func:`widgets.figures.draft_tree.tree_data`.

    Events: ``{kind: "node", round, node}``, ``{kind: "round", round}``. ``selected`` is the node,
    -1 = the root; ``round_count`` bounds the scrub.
    """

    _esm = esm.source(esm.TREE)
    data = t.Dict().tag(sync=True)
    selected = t.Int(-1).tag(sync=True)
    round_count = t.Int(0, min=0).tag(sync=True)
    box_px = t.Int(388, min=0).tag(sync=True)


class LawBarsView(View):
    """Two laws as bars to drag; ``data`` = ``{title, labels, p, q}``, all lists of one length.

    Events: ``{kind: "bar", law: "p" | "q", index, value}``; the others are for Python to rescale.
    """

    _esm = esm.source(esm.BARS)
    data = t.Dict().tag(sync=True)
    box_px = t.Int(250, min=0).tag(sync=True)


class MaskCanvasView(View):
    """Weights as shades, pruned ones hatched; ``data`` from ``mask_image.canvas_data``.

    Events: ``{kind: "paint", cells: [[row, column], ...], keep}``, one a stroke, with the cells
    that are not so already, and ``{kind: "select", row, column}``. The outbox holds as many strokes
    as have some 40 000 cells together, the latest four always.
    """

    _esm = esm.source(esm.MASK)
    data = t.Dict().tag(sync=True)
    box_px = t.Int(320, min=0).tag(sync=True)


class PlotlyLib(anywidget.AnyWidget):
    """Carries plotly.js to the page; invisible. One anywhere on the page serves every plot."""

    _esm = esm.source(esm.PLOTLY)
    script = t.Unicode().tag(sync=True)


@cache
def plotly_lib() -> PlotlyLib:
    """The kernel's one :class:`PlotlyLib` (5 MB, so not one a lab)."""
    return PlotlyLib(script=esm.plotly_script())


class PlotView(View):
    """A plotly dict built in the light palette; needs a :class:`PlotlyLib` on the page.

    Events: ``{kind: "point", figure, x, y, customdata}``. Buttons save PNG and SVG in the browser.
    ``width_px`` says how wide it stands there, in steps of 20 pixels.
    """

    _esm = esm.source(esm.PLOT)
    fig = t.Dict().tag(sync=True)
    width_px = t.Int(0, min=0).tag(sync=True)
    box_px = t.Int(148, min=0).tag(sync=True)
