"""Draws a form with Panel's own widgets, for the dashboard. No rule lives here: see ``form``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import panel as pn

from widgets.controls.form import Field, is_stacked, option_labels, same_control

Change = Callable[[str, Any], None]
LABEL_PX, READOUT_PX, ROW_PX, STACKED_PX = 88, 36, 27, 49
ROW_CSS = """
:host { --panel-primary-color: var(--dw-accent); font-family: var(--dw-sans); font-size: 13px;
  color: var(--dw-text); white-space: nowrap; }
.bk-input { height: 27px; min-height: 27px; padding: 2px 8px; border-radius: 6px;
  font: 13px/1.4 var(--dw-sans); background-color: var(--dw-paper); color: var(--dw-text);
  border: 1px solid var(--dw-edge); box-shadow: none; }
.bk-input:focus { border-color: var(--dw-accent); outline: 1px solid var(--dw-accent); }
select.bk-input { padding-right: 4px; text-overflow: ellipsis;
  appearance: auto !important; background-image: none !important; }
select.bk-input option { background-color: var(--dw-paper); color: var(--dw-text); }
.bk-input-group, .bk-input-group > .bk-input { min-width: 0; }
.bk-spin-btn { display: none; }
label, .bk-slider-title { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
label:has(> input[type="checkbox"]) { position: static; clip-path: none; width: auto;
  height: auto; }
.noUi-target { background: var(--dw-edge); border: 0; box-shadow: none; height: 4px;
  margin: 11px 7px; }
.noUi-connects { border-radius: 2px; }
.noUi-connect { background-color: var(--dw-accent) !important; }
.noUi-horizontal .noUi-handle { background: var(--dw-paper); border: 2px solid var(--dw-accent);
  border-radius: 50%; width: 14px; height: 14px; top: -5px; right: -7px; box-shadow: none;
  cursor: grab; }
.noUi-handle::before, .noUi-handle::after { display: none; }
.noUi-handle:focus-visible { outline: 2px solid var(--dw-accent); outline-offset: 2px; }
"""
MANY_CSS = """
:host { white-space: normal; }
.choices { margin: 0; overflow: visible; }
.choices__inner { display: flex; flex-wrap: wrap; min-height: 27px; padding: 2px 3px 0; border-
  radius: 6px; font-size: 13px;
  background: var(--dw-paper) !important; border: 1px solid var(--dw-edge) !important; }
.choices__list--multiple .choices__item { background: var(--dw-surface) !important;
  color: var(--dw-text) !important; border: 1px solid var(--dw-edge) !important;
  border-radius: 5px; font-size: 12px; padding: 0 5px; margin: 0 3px 3px 0; }
.choices__list--multiple .choices__item .choices__button { filter: invert(.5) grayscale(1);
  border-left-color: var(--dw-edge) !important; margin-left: 4px; padding-left: 14px;
  position: relative; }
.choices__input { width: 40px !important; min-width: 40px !important; background: transparent
  !important; color: var(--dw-text) !important;
  font-size: 12px; margin: 0 0 2px; padding: 1px 2px; }
.choices__list--dropdown, .choices__list[aria-expanded] { background: var(--dw-paper) !important;
  color: var(--dw-text); border-color: var(--dw-edge) !important; z-index: 9; }
.choices__list--dropdown .choices__item { padding: 3px 8px !important; font-size: 13px;
  color: var(--dw-text) !important; background: var(--dw-paper) !important; }
.choices__list--dropdown .choices__item.is-highlighted { color: var(--dw-text) !important;
  background: var(--dw-surface) !important; }
"""
LABEL_CSS = """
:host { font: 13px/1.4 var(--dw-sans); color: var(--dw-text); }
.dw-label { color: var(--dw-muted); white-space: nowrap; overflow: hidden; display: block;
  text-overflow: ellipsis; }
.dw-readout { font-variant-numeric: tabular-nums; display: block; text-align: right; }
"""
LABEL_LOOK: dict[str, Any] = {"margin": 0, "align": "center", "stylesheets": [LABEL_CSS]}


def label_html(field: Field) -> str:
    """The label with its help as a tooltip."""
    return f'<span class="dw-label" title="{escape(field.help, True)}">{escape(field.title)}</span>'


class Row:
    """One field: its label, its control, the value beside a slider."""

    def __init__(self, field: Field, value: Any, changed: Change, titles: Mapping | None = None):
        self.field, self._titles = field, dict(titles or {})
        self.control = self._make(value)
        self.readout = pn.pane.HTML(width=READOUT_PX, **LABEL_LOOK)
        self._say(value)
        self.control.param.watch(lambda event: self._moved(event.new, changed), "value")
        self.widget = self._placed()

    def _placed(self) -> pn.Row | pn.Column:
        """Name, control and value; the name above where the control needs the whole width."""
        field, look = self.field, {"margin": 0, "sizing_mode": "stretch_width"}
        if is_stacked(field, self._titles):
            label = self.label = pn.pane.HTML(label_html(field), **{**LABEL_LOOK, "align": "start"})
            if field.control == "many":  # grows with what is chosen
                return pn.Column(label, self.control, styles={"gap": "2px"}, **look)
            return pn.Column(label, self.control, height=STACKED_PX, styles={"gap": "2px"}, **look)
        self.label = pn.pane.HTML(label_html(field), width=LABEL_PX, **LABEL_LOOK)
        shown = [self.control] + ([self.readout] if field.control == "slider" else [])
        if field.control != "switch":  # a checkbox says its name itself
            shown.insert(0, self.label)
        return pn.Row(*shown, height=ROW_PX, styles={"gap": "6px"}, **look)

    def put(self, value: Any) -> None:
        value = list(value) if self.field.control == "many" else value
        if self.control.value != value:
            self.control.value = value
        self._say(value)

    def goes_on(self, field: Field, titles: Mapping | None = None) -> bool:
        """Whether this row can show ``field``: the same one, perhaps with other choices."""
        return same_control(self.field, field, self._titles) and self._titles == dict(titles or {})

    def become(self, field: Field, value: Any) -> None:
        """Show a field that :meth:`goes_on` allows; the control stays, and what is in the hand."""
        if field != self.field:
            self.field = field
            self.label.object = label_html(field)
            value = list(value) if field.control == "many" else value
            # Choices and value at once: a value that is no choice any more is not reported.
            self.control.param.update(label=field.title, value=value, **self._range())
        self.put(value)

    def _range(self) -> dict[str, Any]:
        """What the control can be set to."""
        field, kind = self.field, self.field.control
        whole = field.knob.kind == "int"
        if kind == "slider":
            step = int(field.step) if whole else field.step
            return {"start": field.knob.low, "end": field.knob.high, "step": step}
        if kind == "choice":
            return {"options": option_labels(field, self._titles)}
        if kind == "many":
            return {"options": list(field.knob.options or ())}
        return {"step": int(field.step) if whole else 0.1} if kind == "number" else {}

    def _say(self, value: Any) -> None:
        if self.field.control == "slider":
            self.readout.object = (
                f'<span class="dw-readout">{escape(self.field.show(value))}</span>'
            )

    def _moved(self, value: Any, changed: Change) -> None:
        if value is None:
            return  # an emptied number box: nothing was said yet
        self._say(value)
        changed(self.field.key, value)

    def _make(self, value: Any) -> pn.widgets.Widget:
        field, kind = self.field, self.field.control
        look = dict(
            label=field.title,
            margin=0,
            align="center",
            sizing_mode="stretch_width",
            stylesheets=[ROW_CSS],
        )
        whole, reach = field.knob.kind == "int", self._range()
        if kind == "slider":
            slider = pn.widgets.IntSlider if whole else pn.widgets.FloatSlider
            return slider(value=value, show_value=False, **reach, **look)
        if kind == "choice":
            return pn.widgets.Select(value=value, **reach, **look)
        if kind == "many":
            look["stylesheets"] = [ROW_CSS, MANY_CSS]
            return pn.widgets.MultiChoice(value=list(value), **reach, **look)
        if kind == "switch":
            return pn.widgets.Checkbox(value=value, **look)
        if kind == "line":
            return pn.widgets.TextInput(value=value, **look)
        box = pn.widgets.IntInput if whole else pn.widgets.FloatInput
        return box(value=value, **reach, **look)


class Form:
    """Rows under each other, rebuilt when the fields change."""

    def __init__(self, changed: Change):
        self._changed = changed
        self._rows: list[Row] = []
        self.widget = pn.Column(margin=0, sizing_mode="stretch_width")

    def show(self, fields: Sequence[Field], values: Mapping[str, Any]) -> None:
        """Draw these fields with these values; a form that shows them already is only filled."""
        if [row.field for row in self._rows] != list(fields):
            self._rows = [Row(field, values[field.key], self._changed) for field in fields]
            self.widget.objects = [row.widget for row in self._rows]
            return
        for row in self._rows:
            row.put(values[row.field.key])
