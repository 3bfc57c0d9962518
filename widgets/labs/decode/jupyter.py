"""The decode lab in JupyterLab: ipywidgets and the ESM views over the shared controller."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw

from widgets.controls.ipywidgets_form import Form, Row
from widgets.labs import frame
from widgets.labs.coalesce import Coalescer
from widgets.labs.decode import exports
from widgets.labs.decode import settings as lab
from widgets.labs.decode.blocks import ERROR_BLOCKS, VIEW_FIELDS, Presenter
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.engine import held_out_prompts
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.decode.twin import twin_html
from widgets.views.jupyter import DraftTreeView, PlotView, TokenStreamView, plotly_lib
from widgets.views.outbox import drain
from workbench.core.trace import Trace

RUN_BUTTONS = {"start": "▶ Start", "pause": "❚❚ Pause", "step": "❚▶ Step", "stop": "■ Stop"}
KNOB_BUTTONS = {"undo": "↶ Undo", "redo": "↷ Redo", "reset": "Reset"}
STREAM_PX, TREE_PX, LAW_PX, CHART_PX = 184, 352, 190, 150
FIGURES = {"law": LAW_PX, "map": CHART_PX, "length": CHART_PX}


def html(text: str = "") -> ipw.HTML:
    return ipw.HTML(text, layout=ipw.Layout(margin="0"))


def box(children: list, *classes: str, row: bool = False) -> ipw.Box:
    """A box that the frame's sheet lays out."""
    made = (ipw.HBox if row else ipw.VBox)(children)
    for name in classes:
        made.add_class(name)
    return made


class DecodeLab:
    """Watch one speculative run live: settings on the left, the run in the middle, why on the right.

    Args:
        model: the target: a name (``zoo:target``, a folder, a hub id) or a loaded model.
        draft: the draft model, likewise; used by drafters that need one.
        prompt: text to continue; without one the lab opens on a recorded run.
        settings: any setting by name, e.g. ``drafter="token_recycling"``, ``temperature=0.8``.

    Raises:
        UnknownMethod, BadKnob, BadInput: with the parameter, the value and the fix.

    Example:
        >>> DecodeLab("zoo:target", prompt="def add(a, b):")  # doctest: +SKIP
    """

    def __init__(
        self, model: Any = "zoo:target", draft: Any = None, prompt: str | None = None, **settings: Any
    ):
        trace = settings.pop("trace", None)
        if trace is None and prompt is None:
            trace = recorded_trace()
        self.controller = DecodeController(model, draft, prompt, trace=trace, **settings)
        self._controls = True
        self._widget: ipw.Widget | None = None

    @classmethod
    def open(cls, source: Trace | str | Path) -> DecodeLab:
        """A lab on a saved trace; no model is loaded before Start is pressed.

        Raises:
            TraceError: a file that is no trace.
        """
        trace = source if isinstance(source, Trace) else Trace.load(source)
        made = cls(trace.model, trace=trace)
        made._warm = False
        return made

    _warm = True

    # ---- use from Python -----------------------------------------------------------------------

    def start(self) -> DecodeLab:
        """Press Start; returns at once."""
        self.controller.start()
        return self

    def stop(self) -> DecodeLab:
        self.controller.stop()
        return self

    def wait(self, timeout_s: float = 120.0) -> DecodeLab:
        """Until the run and the plain baseline are done.

        Raises:
            TimeoutError: after ``timeout_s`` seconds.
        """
        if not self.controller.wait(timeout_s):
            raise TimeoutError(f"timeout_s={timeout_s}: the run is still going; wait longer or stop")
        return self

    def set(self, key: str, value: Any) -> bool:
        """Change a setting as the form would; False (and a message in the lab) if it is refused."""
        return self.controller.change(key, value)

    @property
    def trace(self) -> Trace | None:
        """The run that is shown."""
        return self.controller.trace

    def close(self) -> None:
        self.controller.close()
        if self._widget is not None:
            self._writer.close()
            self._widget.close_all() if False else self._widget.close()

    # ---- display -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"DecodeLab({self.controller.model_name!r})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        live = self.widget._repr_mimebundle_(**options)
        bundle, metadata = live if isinstance(live, tuple) else (live, {})
        twin = {"text/plain": repr(self), "text/html": twin_html(self.controller.view())}
        return {**(bundle or {}), **twin}, metadata

    @property
    def widget(self) -> ipw.Widget:
        """The ipywidgets tree; built when first shown."""
        if self._widget is None:
            self._build()
            if self._warm:
                self.controller.warm()
        return self._widget
