"""Draws a form with ipywidgets, for JupyterLab. No rule lives here: see ``form``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as ipw

from widgets.controls.form import Field, is_stacked, option_labels
from widgets.controls.many_box import ManyBox

Change = Callable[[str, Any], None]


class Row:
    """One field: its label, its control, the value beside a slider.

    ``put`` shows a value that did not come from this control; the change it triggers carries the
    value that the settings already have, so it stops there.
    """

    def __init__(self, field: Field, value: Any, changed: Change, titles: Mapping | None = None):
        self.field, self._titles = field, dict(titles or {})
        self.control = self._make(value)
        if field.control != "many":  # a box with a tooltip cannot be shown by ipywidgets
            self.control.tooltip = field.help
        self.readout = ipw.HTML(layout=ipw.Layout(margin="0"))
        self.readout.add_class("dw-readout")
        self._say(value)
        self.control.observe(lambda change: self._moved(change["new"], changed), names="value")
        label = ipw.HTML(f'<span title="{escape(field.help, True)}">{escape(field.title)}</span>')
        label.add_class("dw-label")
        shown = [label, self.control] + ([self.readout] if field.control == "slider" else [])
        self.widget = ipw.HBox(shown)
        self.widget.add_class("dw-row")
        self.widget.add_class(f"dw-{field.control}")
        if is_stacked(field, self._titles):
            self.widget.add_class("dw-stacked")

    def put(self, value: Any) -> None:
        value = list(value) if self.field.control == "many" else value
        if self.control.value != value:
            self.control.value = value
        self._say(value)

    def _say(self, value: Any) -> None:
        if self.field.control == "slider":
            self.readout.value = escape(self.field.show(value))

    def _moved(self, value: Any, changed: Change) -> None:
        self._say(value)
        changed(self.field.key, value)

    def _make(self, value: Any) -> ipw.Widget:
        field, layout = self.field, ipw.Layout(width="auto", margin="0", flex="1 1 auto")
        kind = field.control
        if kind == "slider":
            slider = ipw.IntSlider if field.knob.kind == "int" else ipw.FloatSlider
            return slider(
                value=value,
                min=field.knob.low,
                max=field.knob.high,
                step=int(field.step) if field.knob.kind == "int" else field.step,
                readout=False,
                layout=layout,
            )
        if kind == "choice":
            options = list(option_labels(field, self._titles).items())
            return ipw.Dropdown(options=options, value=value, layout=layout)
        if kind == "many":
            return ManyBox(value, [str(choice) for choice in field.knob.options or ()], field.title)
        if kind == "switch":
            return ipw.Checkbox(value=value, indent=False, layout=layout)
        if kind == "line":
            return ipw.Text(value=value, continuous_update=False, layout=layout)
        box = ipw.IntText if field.knob.kind == "int" else ipw.FloatText
        return box(value=value, continuous_update=False, layout=layout)


class Form:
    """Rows under each other, rebuilt when the fields change."""

    def __init__(self, changed: Change):
        self._changed = changed
        self._rows: list[Row] = []
        self.widget = ipw.VBox()
        self.widget.add_class("dw-form")

    def show(self, fields: Sequence[Field], values: Mapping[str, Any]) -> None:
        """Draw these fields with these values; a form that shows them already is only filled."""
        if [row.field for row in self._rows] != list(fields):
            self._rows = [Row(field, values[field.key], self._changed) for field in fields]
            self.widget.children = [row.widget for row in self._rows]
            return
        for row in self._rows:
            row.put(values[row.field.key])
