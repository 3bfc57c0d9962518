"""The decode lab in JupyterLab: ipywidgets and the ESM views over the shared controller."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

import ipywidgets as ipw

from widgets.controls.ipywidgets_form import Form, Row
from widgets.labs import frame
from widgets.labs.coalesce import Coalescer
from widgets.labs.decode import exports
from widgets.labs.decode import settings as lab
from widgets.labs.decode.blocks import (
    ERROR_BLOCKS,
    KNOB_BUTTONS,
    PICTURE_BUTTONS,
    PICTURE_HELP,
    RUN_BUTTONS,
    VIEW_FIELDS,
    Presenter,
    fields_of,
)
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.engine import held_out_prompts
from widgets.labs.jupyter_css import JUPYTER_CSS
from widgets.views.jupyter import DraftTreeView, PlotView, TokenStreamView, plotly_lib
from widgets.views.outbox import drain

STREAM_PX, TREE_PX, LAW_PX, CHART_PX = 190, 364, 200, 166
FIGURES = {"law": LAW_PX, "map": CHART_PX, "length": CHART_PX}


def box(children: list, *classes: str, row: bool = False) -> ipw.Box:
    """A box that the frame's sheet lays out."""
    made = (ipw.HBox if row else ipw.VBox)(children)
    for name in classes:
        made.add_class(name)
    return made


def html(text: str = "") -> ipw.HTML:
    return ipw.HTML(text, layout=ipw.Layout(margin="0"))


class JupyterView:
    """The widgets of one lab.

    Args:
        controller: the lab.
        controls: False leaves out the left column and the run buttons (a viewer of saved runs).
    """

    def __init__(self, controller: DecodeController, controls: bool = True):
        self.controller = controller
        self._presenter = Presenter(controller.laws)
        self._seen = {"stream": 0, "tree": 0, "map": 0}
        self.html = {n: html() for n in ("head", "progress", "notice", "node", "speed", "verdict")}
        self.errors = {name: html() for name in ERROR_BLOCKS}
        self.stream = TokenStreamView(box_px=STREAM_PX)
        self.tree = DraftTreeView(box_px=TREE_PX)
        self.figures = {name: PlotView(box_px=px) for name, px in FIGURES.items()}
        self.buttons = {
            verb: self._button(verb, label)
            for verb, label in (RUN_BUTTONS | KNOB_BUTTONS | PICTURE_BUTTONS).items()
        }
        self._make_side()
        self._listen()
        self.widget = self._frame(controls)
        self.flush()
        self._writer = Coalescer(self.flush, busy=lambda: controller.busy)
        controller.listen(self._writer.mark)

    # ---- parts ---------------------------------------------------------------------------------

    def _button(self, verb: str, label: str) -> ipw.Button:
        button = ipw.Button(description=label, layout=ipw.Layout(width="auto", margin="0"))
        button.add_class("dw-button")
        if verb == "start":
            button.add_class("dw-primary")
        button.on_click(lambda _: getattr(self.controller, verb)())
        return button

    def _make_side(self) -> None:
        settings, form = self.controller.view().settings, lab.all_fields()
        wide = ipw.Layout(width="auto", margin="0")
        area = ipw.Layout(width="auto", height="76px", margin="0")
        self.prompt = ipw.Textarea(value=settings["prompt"], continuous_update=True, layout=area)
        prompts = {"held-out prompts …": "", **held_out_prompts()}
        self.picker = ipw.Dropdown(options=list(prompts.items()), value="", layout=wide)
        self.count = Row(form["max_new_tokens"], settings["max_new_tokens"], self._changed)
        self.model = Row(form["model"], settings["model"], self._changed)
        self.pickers, self.forms = {}, {}
        for section in lab.sections(settings):
            row = Row(section.picker, settings[section.name], self._changed, section.titles)
            self.pickers[section.name], self.forms[section.name] = row, Form(self._changed)
        self.kind = ipw.Dropdown(
            options=list(exports.KINDS), layout=ipw.Layout(flex="1", margin="0")
        )
        self.save = ipw.Button(description="Save", layout=ipw.Layout(width="auto", margin="0"))
        self.save.add_class("dw-button")
        self.link = html()
        self.upload = ipw.FileUpload(accept=".json", description="Open a saved trace", layout=wide)
        self.upload.add_class("dw-button")

    def _listen(self) -> None:
        self.prompt.observe(lambda c: self._changed("prompt", c["new"]), names="value")
        self.picker.observe(self._picked, names="value")
        self.upload.observe(self._opened, names="value")
        self.save.on_click(lambda _: self._export())
        for name in self._seen:
            view = {"stream": self.stream, "tree": self.tree, "map": self.figures["map"]}[name]
            view.observe(lambda c, name=name: self._clicked(name, c["new"]), names="outbox")

    def _side(self) -> ipw.Box:
        """The left column: prompt, methods and their knobs; at its foot what is always in reach."""
        rows: list[Any] = [title("Prompt"), self.prompt, self.picker]
        rows += [self.count.widget, self.model.widget]
        rows.append(self.errors["prompt"])
        for section in lab.sections(self.controller.view().settings):
            rows += [
                title(section.title),
                self.pickers[section.name].control,
                self.forms[section.name].widget,
                self.errors[section.name],
            ]
        rows.append(self.upload)
        foot = [
            self.html["notice"],
            self.errors["trace"],
            self.link,
            box([self.buttons[name] for name in KNOB_BUTTONS], "dw-line", row=True),
            box([self.kind, self.save], "dw-line", row=True),
        ]
        return box([box(rows, "dw-knobs"), box(foot, "dw-foot")], "dw-side")

    def _frame(self, controls: bool) -> ipw.Box:
        run = [self.buttons[name] for name in RUN_BUTTONS] if controls else []
        head = box([self.html["head"], *run, self.html["progress"]], "dw-head", row=True)
        trouble = [self.errors["model"], self.errors["run"]]
        stream = box([*trouble, self.stream], "dw-cell")
        node = box([self.figures["law"], self.html["node"]], "dw-cell", "dw-node")
        middle = box([box([self.tree], "dw-cell"), node], "dw-band", "dw-middle")
        speed = box([self.html["speed"], self.errors["speed"]], "dw-cell", "dw-block")
        self.buttons["picture"].add_class("dw-corner")
        self.buttons["picture"].tooltip = PICTURE_HELP
        own = [self.figures["map"], self.buttons["picture"]]
        charts = [box(own, "dw-cell"), box([self.figures["length"]], "dw-cell")]
        bottom = box([*charts, speed], "dw-band", "dw-bottom")
        bands = [box([stream], "dw-band"), middle, bottom, self.html["verdict"]]
        main = box(bands, "dw-main")
        side = [self._side()] if controls else []
        grid = box([head, *side, main], "dw-grid", *([] if controls else ["dw-bare"]))
        sheet = ipw.HTML(
            f"<style>{frame.css()}{JUPYTER_CSS}</style>", layout=ipw.Layout(display="none")
        )
        return box([sheet, plotly_lib(), grid], "dw", "dw-lab", "dw-in-jupyter")

    # ---- from the browser ----------------------------------------------------------------------

    def _changed(self, key: str, value: Any) -> None:
        self.controller.change(key, value, from_form=True)

    def _picked(self, change: dict) -> None:
        if change["new"]:
            self.controller.change("prompt", change["new"])

    def _opened(self, change: dict) -> None:
        for file in change["new"]:
            self.controller.open(bytes(file["content"]), file["name"])

    def _export(self) -> None:
        kind = exports.KINDS[self.kind.value]
        try:
            data = base64.b64encode(kind.make(self.controller.view())).decode()
        except Exception as error:  # a missing optional package, nothing to export yet
            self.link.value = frame.error_html(f"{self.kind.value}: {error}")
            return
        self.link.value = (
            f'<a class="dw-link" download="{escape(kind.filename, True)}"'
            f' href="data:{kind.mime};base64,{data}">↓ {escape(kind.filename)}</a>'
        )

    def _clicked(self, view: str, outbox: list) -> None:
        events, self._seen[view] = drain(outbox, self._seen[view])
        for event in events:
            self.controller.handle(event)

    # ---- to the browser ------------------------------------------------------------------------

    def flush(self) -> None:
        """Draw what changed."""
        changes = self._presenter.changes(self.controller.view())
        for name, pane in self.html.items():
            if name in changes:
                pane.value = changes[name]
        for name, pane in self.errors.items():
            if f"error {name}" in changes:
                pane.value = changes[f"error {name}"]
        for name, plot in self.figures.items():
            if name in changes:
                plot.fig = changes[name]
        for name in VIEW_FIELDS:
            put(getattr(self, name), fields_of(name, changes))
        if "verbs" in changes:
            for verb, button in self.buttons.items():
                button.disabled = verb != "reset" and verb not in changes["verbs"]
            shown = "visible" if "picture" in changes["verbs"] else "hidden"
            self.buttons["picture"].layout.visibility = shown
        if "form" in changes:
            self._fill(changes["form"])

    def _fill(self, settings: Any) -> None:
        if self.prompt.value != settings["prompt"]:
            self.prompt.value = settings["prompt"]
        self.count.put(settings["max_new_tokens"])
        self.model.put(settings["model"])
        for section in lab.sections(settings):
            self.pickers[section.name].put(settings[section.name])
            self.forms[section.name].show(section.fields, settings)

    def close(self) -> None:
        """Stop the writer and take the widgets off the page."""
        self._writer.close()
        self.widget.close()


def put(view: ipw.Widget, fields: dict[str, Any]) -> None:
    """Set fields of a view in one message, so that the page never sees half of them."""
    with view.hold_sync():
        for field, value in fields.items():
            setattr(view, field, value)


def title(text: str) -> ipw.HTML:
    return html(f'<h3 class="dw-title">{escape(text)}</h3>')
