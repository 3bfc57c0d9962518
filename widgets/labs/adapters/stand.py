"""What the adapter lab works on: a model, adapters as values, and settings that put them on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from widgets.labs.adapters import form
from widgets.labs.adapters.shelf import Entry, look_at, put_on
from widgets.labs.bench import Bench
from widgets.labs.board import Section
from widgets.labs.worker import Task
from workbench.core.method import methods
from workbench.models.adapting import Adapters
from workbench.models.model import Model
from workbench.models.units import matrices
from workbench.training.adapter import AdapterProgress
from workbench.training.realign import Realigned
from workbench.training.texts import Texts, read_texts

LIVE = {"", "first", "second", "on", "strength", "second_strength", "layer_factor", "draft"}
LOOK_ROWS = 2
LAYERS_UNKNOWN = 8
WORKING = "working"  # the name an adapter has while it is made


class Stand(Bench):
    """The model, the adapters of the shelf, and what the settings put on it; see AdapterLab."""

    looks = frozenset({"show", "below", "layer"})

    def __init__(
        self,
        model: str | Model = "zoo:target",
        draft: str | Model = "zoo:draft",
        *,
        measure_steps: int = 15,
    ):
        super().__init__(model, draft)
        self.adapters: Adapters | None = None
        self.shelf: dict[str, Entry] = {}
        self.progress: AdapterProgress | None = None
        self.realigned: Realigned | None = None
        self.sweeps: dict[str, list[tuple[float, float]]] = {}
        self._measure_steps = measure_steps
        self._plain: Model | None = None
        self._texts: dict[str, Texts] = {}
        self._folders: dict[str, tempfile.TemporaryDirectory] = {}
        self._notes: tuple[str, ...] = ()

    # ---- forms -----------------------------------------------------------------------------------

    def forms(self) -> tuple[Section, ...]:
        """What is on the model, how to make more of it, and what is drawn."""
        layers = self.model.layer_count if self.model else LAYERS_UNKNOWN
        value = self.value
        return form.sections(
            value("method", "lora"),
            value("peft_type", "LOHA"),
            value("operation", "compeft"),
            value("data", "asyncio"),
            tuple(self.shelf),
            layers,
        )

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        names = {card.name: card.title for card in methods("adapter")}
        return {
            "method": {**names, form.PEFT: "any of peft's"},
            "operation": {card.name: card.title for card in methods("operation")},
            "show": form.SHOWN,
            "below": form.BELOW,
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        now = dict(super().settings)
        return {**now, "layer_factor": self.factors.get(now["layer"], 1.0)}

    @property
    def factors(self) -> Mapping[int, float]:
        """Layer -> factor, where one was set."""
        return self.value("factors", {})

    def put(self, key: str, value: Any) -> bool:
        """A layer's factor is kept with those of the other layers."""
        if key == "layer_factor":
            key, value = "factors", {**self.factors, self.settings["layer"]: value}
        return super().put(key, value)

    def touched(self, key: str) -> None:
        """Only what is on the model is applied and measured at once."""
        if key in LIVE:
            super().touched(key)

    def entry(self, key: str) -> Entry | None:
        """The adapter of the shelf that ``first`` or ``second`` names."""
        return self.shelf.get(self.settings[key])

    # ---- the model -------------------------------------------------------------------------------

    def prepared(self, task: Task) -> None:
        assert self.model is not None  # loaded
        self.adapters, self._plain = Adapters(self.model), self.draft
        self._notes = _left_out(self.model)

    @property
    def untouched(self) -> bool:
        """No adapter is on the model, and the plain draft drafts."""
        worn = self.settings["on"] and (self.entry("first") or self.entry("second"))
        return not worn and self.draft is self._plain

    def apply(self, task: Task) -> None:
        """From the untouched model: the adapters, their strengths, the draft."""
        assert self.adapters is not None  # prepared
        self.adapters.detach()
        now, first, second = self.settings, self.entry("first"), self.entry("second")
        self.draft = self._plain
        if now["draft"] == form.REALIGNED and self.realigned is not None:
            self.draft = self.realigned.draft
        if not now["on"]:
            return
        if first is not None:
            put_on(self.adapters, first)
            self.adapters.set_strength(first.name, now["strength"], self.factors)
        if second is not None and second is not first:
            put_on(self.adapters, second)
            self.adapters.set_strength(second.name, now["second_strength"])

    def texts_now(self) -> Texts:
        """The text to adapt to."""
        assert self.model is not None  # loaded
        now = self.settings
        source = now["folder"] if now["data"] == form.FOLDER else now["data"]
        if source not in self._texts:
            self._texts[source] = read_texts(source, self.model)
        return self._texts[source]

    def _shelve(self, name: str, kind: str, texts: Texts, **more: Any) -> None:
        """Take what is attached as ``working`` as a value of its own name."""
        assert self.adapters is not None and self.model is not None  # prepared
        adapters, state = self.adapters, self.adapters.state(WORKING)
        config, start = adapters.config(WORKING), dict(adapters.start(WORKING))
        adapters.detach(WORKING)
        adapters.put(config, state, name, start)
        rows = texts.held_out[:LOOK_ROWS].to(self.model.torch_device)
        self.shelf[name] = look_at(adapters, name, kind, rows, **more)

    def _choose(self, note: str = "", **changes: Any) -> None:
        """One step of undo, then apply and measure; ``note`` says what was done."""
        self._note = note
        self.history.replace({**self.history.now, **changes})
        self.touched("first")
        self._mark()

    def restore(self) -> None:
        """Take everything off."""
        if self.adapters is not None:
            self.adapters.detach()
        for folder in self._folders.values():
            folder.cleanup()


def _left_out(model: Model) -> tuple[str, ...]:
    """What no adapter of this model reaches, in a sentence."""
    if all(one.expert is None for one in matrices(model).values()):
        return ()
    return (
        "The experts of this mixture are stored as one block and are not adapted; its other"
        " matrices are.",
    )
