"""The decode lab as a page of the dashboard: Panel's own widgets over the shared controller."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from html import escape
from typing import Any

import panel as pn

from widgets import theme
from widgets.controls.panel_form import ROW_CSS, Form, Row
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
from widgets.views.outbox import drain
from widgets.views.panel import DraftTreeView, TokenStreamView

BUTTON_CSS = """
:host { font-family: var(--dw-sans); }
.bk-btn.bk-btn { border: 1px solid var(--dw-edge) !important; border-radius: 7px; padding: 4px 11px;
  font: 500 13px/1.3 var(--dw-sans); height: 30px; background: var(--dw-paper) !important;
  color: var(--dw-text) !important; box-shadow: none; }
.bk-btn.bk-btn-default:hover:not([disabled]) { background: var(--dw-surface) !important; }
.bk-btn.bk-btn-primary.bk-btn-primary { background: var(--dw-accent) !important;
  border-color: var(--dw-accent) !important; color: var(--dw-paper) !important; }
.bk-btn[disabled] { opacity: .45; }
.bk-btn:focus-visible { outline: 2px solid var(--dw-accent); outline-offset: 2px; }
"""
SMALL_CSS = """
.bk-btn.bk-btn { height: 22px; padding: 0 8px; font-size: 11.5px; }
"""
FILE_CSS = """
:host { font: 12px/1.4 var(--dw-sans); }
.bk-input[type="file"] { border: 0; padding: 0; height: 28px; background: none; box-shadow: none;
  font: 12px/1.4 var(--dw-sans); color: var(--dw-muted); }
::file-selector-button { border: 1px solid var(--dw-edge); border-radius: 7px; padding: 3px 10px;
  font: 500 12px/1.4 var(--dw-sans); background: var(--dw-paper); color: var(--dw-text); }
"""
AREA_CSS = ROW_CSS + f"textarea.bk-input {{ font: 12px/1.5 {theme.MONO}; height: 100%; }}"


def html(text: str = "", **look: Any) -> pn.pane.HTML:
    """HTML that looks as the frame does."""
    options = {"margin": 0, "sizing_mode": "stretch_width", **look}
    return pn.pane.HTML(text, stylesheets=[frame.TEXT_CSS], **options)


class DecodePanel:
    """One browser session's view of one controller.

    Args:
        controller: the lab.
        schedule: runs a function where the document may be changed; None calls it directly.
        mode: ``light`` or ``dark`` for the figures; the rest follows the browser by itself.
    """

    def __init__(
        self,
        controller: DecodeController,
        schedule: Callable[[Callable[[], None]], Any] | None = None,
        mode: str = "light",
    ):
        self.controller, self.mode = controller, mode
        self._schedule = schedule or (lambda work: work())
        self._presenter = Presenter(controller.laws)
        self._seen = {"stream": 0, "tree": 0}
        self.html = {
            name: html() for name in ("head", "progress", "notice", "node", "speed", "verdict")
        }
        self.errors = {name: html() for name in ERROR_BLOCKS}
        self.stream = TokenStreamView(sizing_mode="stretch_both", margin=0, box_px=0, mode=mode)
        self.tree = DraftTreeView(sizing_mode="stretch_both", margin=0, box_px=0, mode=mode)
        look = {"sizing_mode": "stretch_both", "margin": 0}
        self.figures = {name: pn.pane.Plotly(None, **look) for name in ("law", "map", "length")}
        self.buttons = self._buttons(RUN_BUTTONS | KNOB_BUTTONS | PICTURE_BUTTONS)
        self._make_side()
        self._listen()
        self._writer = Coalescer(
            lambda: self._schedule(self._charged_flush), busy=lambda: controller.busy
        )
        controller.listen(self._writer.mark)
        self.flush()

    # ---- parts ---------------------------------------------------------------------------------

    def _buttons(self, labels: dict[str, str]) -> dict[str, pn.widgets.Button]:
        made = {}
        for verb, label in labels.items():
            kind = "primary" if verb == "start" else "default"
            css = [BUTTON_CSS, *([SMALL_CSS] if verb in PICTURE_BUTTONS else [])]
            look = {"stylesheets": css, "margin": 0, "align": "center"}
            look |= {"description": PICTURE_HELP} if verb in PICTURE_BUTTONS else {}
            made[verb] = pn.widgets.Button(label=label, color=kind, **look)
            made[verb].on_click(lambda _, verb=verb: getattr(self.controller, verb)())
        return made

    def _make_side(self) -> None:
        settings, form = self.controller.view().settings, lab.all_fields()
        area = {"sizing_mode": "stretch_width", "margin": 0, "stylesheets": [AREA_CSS]}
        self.prompt = pn.widgets.TextAreaInput(label="Prompt", value=settings["prompt"], **area)
        self.prompt.height, self.prompt.max_length = 70, 100_000
        prompts = held_out_prompts()
        self.picker = pn.widgets.Select(
            label="Held-out prompts",
            options={"held-out prompts …": "", **prompts},
            value="",
            **area,
        )
        self.picker.visible = bool(prompts)
        self.count = Row(form["max_new_tokens"], settings["max_new_tokens"], self._changed)
        self.model = Row(form["model"], settings["model"], self._changed)
        self.pickers, self.forms = {}, {}
        for section in lab.sections(settings):
            row = Row(section.picker, settings[section.name], self._changed, section.titles)
            row.control.param.update(sizing_mode="stretch_width")
            self.pickers[section.name] = row
            self.forms[section.name] = Form(self._changed)
        self.upload = pn.widgets.FileInput(
            accept=".json", margin=0, sizing_mode="stretch_width", stylesheets=[FILE_CSS]
        )
        self.kind = pn.widgets.Select(label="What to save", options=list(exports.KINDS), **area)
        self.download = pn.widgets.FileDownload(
            label="Save",
            callback=self._export,
            filename="trace.json",
            embed=False,
            auto=True,
            margin=0,
            width=70,
            height=30,
            color="default",
            stylesheets=[BUTTON_CSS],
        )

    def _listen(self) -> None:
        self.prompt.param.watch(lambda e: self._changed("prompt", e.new), "value")
        self.picker.param.watch(self._picked, "value")
        self.upload.param.watch(self._opened, "value")
        self.kind.param.watch(self._named, "value")
        self.stream.param.watch(lambda e: self._clicked("stream", e.new), "outbox")
        self.tree.param.watch(lambda e: self._clicked("tree", e.new), "outbox")
        self.figures["map"].param.watch(self._map_clicked, "click_data")

    def _title(self, text: str) -> pn.pane.HTML:
        return html(f'<h3 class="dw-title">{escape(text)}</h3>', margin=(9, 0, 3, 0))

    def side(self) -> pn.Column:
        """The left column: prompt, methods and their knobs."""
        rows: list[Any] = [
            self._title("Prompt"),
            self.prompt,
            self.picker,
            self.count.widget,
            self.model.widget,
            self.errors["prompt"],
        ]
        for section in lab.sections(self.controller.view().settings):
            rows += [
                self._title(section.title),
                self.pickers[section.name].control,
                self.forms[section.name].widget,
                self.errors[section.name],
            ]
        label = html('<span class="dw-small">open trace</span>', width=66, sizing_mode=None)
        look = {"gap": "6px", "align-items": "center"}
        rows.append(pn.Row(label, self.upload, margin=(8, 0, 0, 0), styles=look))
        return pn.Column(*rows, margin=0, sizing_mode="stretch_width", styles={"gap": "2px"})

    def foot(self) -> pn.Column:
        """What stays in reach below the settings, however many there are."""
        look = {"margin": 0, "styles": {"gap": "6px"}}
        undo = pn.Row(*(self.buttons[name] for name in KNOB_BUTTONS), **look)
        save = pn.Row(self.kind, self.download, **look)
        save.margin = (6, 0, 0, 0)
        words = (self.html["notice"], self.errors["trace"])
        return pn.Column(*words, undo, save, margin=0, sizing_mode="stretch_width")

    def roots(self) -> dict[str, Any]:
        """Name -> what the page's template puts there."""
        run = [self.buttons[name] for name in RUN_BUTTONS]
        return {
            "head": self.html["head"],
            "buttons": pn.Row(*run, margin=0, styles={"gap": "10px"}),
            "progress": self.html["progress"],
            "side": self.side(),
            "foot": self.foot(),
            "stream": self.stream,
            "tree": self.tree,
            "node": self.html["node"],
            "law": self.figures["law"],
            "map": self.figures["map"],
            "picture": self.buttons["picture"],
            "length": self.figures["length"],
            "speed": pn.Column(self.html["speed"], self.errors["speed"], margin=0),
            "verdict": self.html["verdict"],
            "trouble": pn.Column(self.errors["model"], self.errors["run"], margin=0),
        }

    # ---- from the browser ----------------------------------------------------------------------

    def _changed(self, key: str, value: Any) -> None:
        self.controller.change(key, value, from_form=True)

    def _picked(self, event: Any) -> None:
        if event.new:
            self.controller.change("prompt", event.new)

    def _opened(self, event: Any) -> None:
        if event.new:
            self.controller.open(event.new, self.upload.filename or "the file")

    def _named(self, event: Any) -> None:
        self.download.filename = exports.KINDS[event.new].filename

    def _export(self) -> io.BytesIO:
        try:
            return io.BytesIO(exports.export_bytes(self.kind.value, self.controller.view()))
        except Exception as error:  # nothing to save yet, or an optional package is missing
            self.errors["trace"].object = frame.error_html(f"{self.kind.value}: {error}")
            raise

    def _clicked(self, view: str, outbox: list) -> None:
        events, self._seen[view] = drain(outbox, self._seen[view])
        for event in events:
            self.controller.handle(event)

    def _map_clicked(self, event: Any) -> None:
        points = (event.new or {}).get("points") or [{}]
        self.controller.handle({"kind": "point", "customdata": points[0].get("customdata")})

    # ---- to the browser ------------------------------------------------------------------------

    def _charged_flush(self) -> None:
        """A flush on the page's own thread, told to the writer that asked for it."""
        began_s = time.thread_time()
        self.flush()
        self._writer.charge(time.thread_time() - began_s)

    def flush(self) -> None:
        """Draw what changed; called where the document may be changed."""
        view = self.controller.view()
        changes = self._presenter.changes(view)
        for name, pane in self.html.items():
            if name in changes:
                pane.object = changes[name]
        for name, pane in self.errors.items():
            if f"error {name}" in changes:
                pane.param.update(object=changes[f"error {name}"])
        for name, pane in self.figures.items():
            if name in changes:
                figure = theme.in_mode(changes[name], self.mode)
                pane.param.update(
                    object={k: figure[k] for k in ("data", "layout")}, config=figure["config"]
                )
        for name in VIEW_FIELDS:
            getattr(self, name).param.update(**fields_of(name, changes))
        if "verbs" in changes:
            for verb, button in self.buttons.items():
                button.disabled = verb != "reset" and verb not in changes["verbs"]
            self.buttons["picture"].visible = "picture" in changes["verbs"]
        if "form" in changes:
            self._fill(changes["form"])

    def _fill(self, settings: Any) -> None:
        self.prompt.value = settings["prompt"]
        self.count.put(settings["max_new_tokens"])
        self.model.put(settings["model"])
        for section in lab.sections(settings):
            self.pickers[section.name].put(settings[section.name])
            self.forms[section.name].show(section.fields, settings)

    def darken(self, dark: bool) -> None:
        """Redraw the figures for a dark or a light page."""
        wanted = "dark" if dark else "light"
        if wanted == self.mode:
            return
        self.mode = wanted
        self.stream.mode = self.tree.mode = self.mode
        self._presenter = Presenter(self.controller.laws)
        self.flush()

    def close(self) -> None:
        """The session is gone: stop its run and its thread."""
        self.controller.close()
        self._writer.close(0.0)
