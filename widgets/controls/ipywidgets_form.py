"""Draws a form with ipywidgets, for JupyterLab. No rule lives here: see ``form``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import Any

import ipywidgets as ipw

from widgets.controls.form import Field, is_stacked, option_labels, same_control
from widgets.controls.many_box import ManyBox

Change = Callable[[str, Any], None]


def label_html(field: Field) -> str:
    """The label with its help as a tooltip."""
    return f'<span title="{escape(field.help, True)}">{escape(field.title)}</span>'


class Row:
    """One field: its label, its control, the value beside a slider.

    ``put`` shows a value that did not come from this control; the change it triggers carries the
    value that the settings already have, so it stops there.
    """

    def __init__(self, field: Field, value: Any, changed: Change, titles: Mapping | None = None):
        self.field, self._titles, self._quiet = field, dict(titles or {}), False
        self.control = self._make(value)
        if field.control != "many":  # a box with a tooltip cannot be shown by ipywidgets
            self.control.tooltip = field.help
        self.readout = ipw.HTML(layout=ipw.Layout(margin="0"))
        self.readout.add_class("dw-readout")
        self._say(value)
        self.control.observe(lambda change: self._moved(change["new"], changed), names="value")
        self.label = ipw.HTML(label_html(field))
        self.label.add_class("dw-label")
        shown = [self.label, self.control] + ([self.readout] if field.control == "slider" else [])
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

    def goes_on(self, field: Field, titles: Mapping | None = None) -> bool:
        """Whether this row can show ``field``: the same one, perhaps with another range.

        A choice travels as its place in the list, so a list to which something was not merely added
        needs a new control: a choice on its way would be taken for another.
        """
        had, has = (list(option_labels(f, self._titles).items()) for f in (self.field, field))
        chosen = field.control in ("choice", "many")
        alike = same_control(self.field, field, self._titles) and self._titles == dict(titles or {})
        return alike and (not chosen or has == had or self._grows(field, had, has))

    @staticmethod
    def _grows(field: Field, had: list, has: list) -> bool:
        return field.control == "choice" and has[: len(had)] == had

    def become(self, field: Field, value: Any) -> None:
        """Show a field that :meth:`goes_on` allows; the control stays, and what is in the hand."""
        if field != self.field:
            self.field, self._quiet = field, True
            self.label.value = label_html(field)
            try:
                with self.control.hold_sync(), self._range_at_once():
                    for name, new in self._range().items():
                        if getattr(self.control, name) != new:
                            setattr(self.control, name, new)
                    if field.control != "many":
                        self.control.tooltip = field.help
                        self.control.value = value
            finally:
                self._quiet = False
        self.put(value)

    def _range_at_once(self) -> AbstractContextManager:
        """Least and most may only change together; a list has to be there before its value."""
        chosen = self.field.control == "choice"
        return nullcontext() if chosen else self.control.hold_trait_notifications()

    def _range(self) -> dict[str, Any]:
        """What the control can be set to."""
        field = self.field
        if field.control == "slider":
            step = int(field.step) if field.knob.kind == "int" else field.step
            return {"min": field.knob.low, "max": field.knob.high, "step": step}
        if field.control == "choice":
            return {"options": tuple(option_labels(field, self._titles).items())}
        return {}

    def _say(self, value: Any) -> None:
        if self.field.control == "slider":
            self.readout.value = escape(self.field.show(value))

    def _moved(self, value: Any, changed: Change) -> None:
        if self._quiet:
            return  # it is being set up
        self._say(value)
        changed(self.field.key, value)

    def _make(self, value: Any) -> ipw.Widget:
        field, layout = self.field, ipw.Layout(width="auto", margin="0", flex="1 1 auto")
        kind = field.control
        if kind == "slider":
            slider = ipw.IntSlider if field.knob.kind == "int" else ipw.FloatSlider
            return slider(value=value, readout=False, layout=layout, **self._range())
        if kind == "choice":
            return ipw.Dropdown(value=value, layout=layout, **self._range())
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
