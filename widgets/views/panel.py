"""The same ESM views as Panel components; charts in Panel use ``pn.pane.Plotly``."""

from __future__ import annotations

import param
from panel.custom import AnyWidgetComponent

from widgets.views import esm

MODES = ["auto", "light", "dark"]


class View(AnyWidgetComponent):
    """What all views share; :class:`widgets.views.jupyter.View` says what each field means."""

    outbox = param.List(default=[], doc="Numbered events, newest last.")
    mode: param.Selector = param.Selector(
        default="auto", objects=MODES, doc="`auto` follows the host."
    )
    box_px = param.Integer(default=0, bounds=(0, None), doc="Height in pixels; 0 fills the box.")

    __abstract = True


class TokenStreamView(View):
    """Every token by its fate; fields and events as in the JupyterLab shell."""

    _esm = esm.source(esm.STREAM)
    data = param.Dict(default={})
    tail = param.Dict(default={})
    selected = param.Integer(default=-1)
    running = param.Boolean(default=False)
    box_px = param.Integer(default=214, bounds=(0, None))


class DraftTreeView(View):
    """The tree of one round; fields and events as in the JupyterLab shell."""

    _esm = esm.source(esm.TREE)
    data = param.Dict(default={})
    selected = param.Integer(default=-1)
    round_count = param.Integer(default=0, bounds=(0, None))
    box_px = param.Integer(default=388, bounds=(0, None))


class LawBarsView(View):
    """Two laws as bars to drag; fields and events as in the JupyterLab shell."""

    _esm = esm.source(esm.BARS)
    data = param.Dict(default={})
    box_px = param.Integer(default=250, bounds=(0, None))


class MaskCanvasView(View):
    """Weights as shades, pruned ones hatched; fields and events as in the JupyterLab shell."""

    _esm = esm.source(esm.MASK)
    data = param.Dict(default={})
    box_px = param.Integer(default=320, bounds=(0, None))
