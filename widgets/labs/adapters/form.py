"""The adapter lab's forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from widgets.controls.form import Field, fields_of, picker
from widgets.labs.board import Section
from workbench.core.method import Knob, find_method, make_method, methods
from workbench.models.adapter_forms import config_knobs, peft_config, takes_targets, tuner_types
from workbench.models.adapter_strength import MOST_STRENGTH
from workbench.models.corpus import FAMILIES

NONE, FOLDER, PEFT = "none", "folder", "peft"
PLAIN, REALIGNED = "plain", "re-aligned"
SHOWN = {"training": "while training", "strength": "by strength"}
BELOW = {"spectrum": "singular values", "routers": "experts' load", "ranks": "ranks while growing"}


def _field(name: str, kind: str, default: Any, help: str, label: str = "", **more: Any) -> Field:
    return Field(name, Knob(name, kind, default, help=help, **more), "lab", label)


def sections(
    method: str, peft_type: str, operation: str, data: str, shelf: Sequence[str], layers: int
) -> tuple[Section, ...]:
    """What is on the model first, then how to make more of it.

    Args:
        method, peft_type, operation, data: chosen now; their own knobs follow them.
        shelf: names of the adapters that are there.
        layers: of the model.
    """
    return (
        Section("On the model", _on_the_model(shelf, layers)),
        Section("New adapter", _new(method, peft_type)),
        Section("Training", _training(data)),
        Section("Combine", _combine(operation)),
        Section(
            "File", (_field("path", "text", "", "Folder of a peft adapter, to open or save."),)
        ),
        Section("Pictures", _pictures()),
    )


def _on_the_model(shelf: Sequence[str], layers: int) -> tuple[Field, ...]:
    names = (NONE, *shelf)
    span: dict[str, Any] = {"low": 0.0, "high": MOST_STRENGTH, "step": 0.05}
    return (
        _field("first", "choice", NONE, "The adapter that is looked at.", choices=names),
        _field("on", "bool", True, "Off is the untouched model."),
        _field("strength", "float", 1.0, "0 = the base, 1 = as trained.", **span),
        _field("layer", "int", 0, "Layer looked at.", low=0, high=max(1, layers - 1)),
        _field("layer_factor", "float", 1.0, "Further factor of that layer.", "at layer", **span),
        _field("second", "choice", NONE, "A second adapter beside it.", choices=names),
        _field("second_strength", "float", 1.0, "Of the second.", "its strength", **span),
        _field("draft", "choice", PLAIN, "Which draft model drafts.", choices=(PLAIN, REALIGNED)),
    )


def _new(method: str, peft_type: str) -> tuple[Field, ...]:
    names = (*(card.name for card in methods("adapter")), PEFT)
    pick = _field("method", "choice", "lora", "What is trained; peft = any of its.", choices=names)
    if method != PEFT:
        return pick, *fields_of(find_method("adapter", method))
    kinds = tuner_types()
    kind = _field("peft_type", "choice", "LOHA", "peft's own types.", "type", choices=kinds)
    where = _field("peft_targets", "text", "q_proj,v_proj", "Module names, with commas.", "modules")
    knobs = tuple(
        Field(f"peft.{peft_type}.{knob.name}", knob, peft_type) for knob in config_knobs(peft_type)
    )
    return pick, kind, where, *knobs


def _training(data: str) -> tuple[Field, ...]:
    sources = (*FAMILIES, FOLDER)
    pick = _field("data", "choice", "asyncio", "Held-out family, or a folder.", choices=sources)
    folder = (_field("folder", "text", "", "Folder with text files."),) if data == FOLDER else ()
    return (
        pick,
        *folder,
        _field("steps", "int", 60, "Of the optimiser.", low=1, high=2000, unit="steps"),
        _field("rows", "int", 4, "Texts a step.", low=1, high=32, unit="rows"),
        _field("rate", "float", 3e-3, "Peak learning rate.", low=0.0, high=1.0, step=1e-4),
    )


def _combine(operation: str) -> tuple[Field, ...]:
    cards = methods("operation")
    return (
        picker("operation", cards, "compeft", "Makes a new adapter of those on the model."),
        *fields_of(find_method("operation", operation)),
    )


def _pictures() -> tuple[Field, ...]:
    return (
        _field(
            "show",
            "choice",
            "training",
            "What acceptance is drawn over.",
            "acceptance",
            choices=tuple(SHOWN),
        ),
        _field("below", "choice", "spectrum", "Lower picture.", "lower", choices=tuple(BELOW)),
    )


def made(family: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The method that the form describes."""
    prefix = f"{family}.{name}."
    knobs = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    return make_method(family, name, **knobs)


class AnyTuner:
    """One of peft's own types, with the knobs of its configuration, as an adapter method."""

    zero_init = False
    linear = False

    def __init__(self, settings: Mapping[str, Any]):
        self.name = settings["peft_type"]
        prefix = f"peft.{self.name}."
        self._knobs = {k.removeprefix(prefix): v for k, v in settings.items() if prefix in k}
        self._targets = [t.strip() for t in settings["peft_targets"].split(",") if t.strip()]

    def config(self, shapes: Sequence[Any]) -> Any:
        """peft's configuration; without targets peft chooses by the model's family."""
        wanted = self._targets and takes_targets(self.name)
        where = {"target_modules": self._targets} if wanted else {}
        if self.name == "IA3":
            where["feedforward_modules"] = []
        return peft_config(self.name, **where, **self._knobs)
