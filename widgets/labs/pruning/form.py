"""The pruning lab's forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from widgets.controls.form import Field, fields_of, picker
from widgets.labs.board import Section
from workbench.core.method import Knob, find_method, make_method, methods
from workbench.core.pruning import PATTERNS, Pruner
from workbench.training.perp import VARIANTS

FIRST = "magnitude"
MOST_RATIO = 0.95
# Matrices of the canvas that are no weights: rows are layers.
ACROSS = {"neurons": "neurons × layers", "groups": "heads × layers", "layers": "layers"}
BARS = ("kept share", "loss without it")
FIRST_PATTERN = {"weights": "row"}
RECOVERY = {
    "norms": "gains of the norms",
    "variant": "update of the matrices",
    "steps": "training steps",
}
# Settings that change no model.
QUIET = ("matrix", "layer", "bars", "variant", "norms", "steps", "folder")


def sections(now: Mapping[str, Any], layers: int, roles: tuple[str, ...]) -> tuple[Section, ...]:
    """What goes, where the hand paints, retraining, and where things are saved.

    Args:
        now: what has been set.
        layers: of the model; 0 = not loaded yet.
        roles: the matrices that a layer has.
    """
    name = now.get("pruner", FIRST)
    acts_on = find_method("pruner", name).make().acts_on
    choices = PATTERNS[acts_on]
    first = FIRST_PATTERN.get(acts_on, choices[0])
    ratio = now.get("ratio", 0.0)
    pattern = Knob("pattern", "choice", first, choices=choices, help="What scores compete within.")
    share = Knob("ratio", "float", 0.0, 0.0, MOST_RATIO, 0.05, help="Share that goes.")
    what = [
        picker("pruner", methods("pruner"), FIRST, "What decides which weights go."),
        *fields_of(find_method("pruner", name)),
        Field(f"pattern.{acts_on}", pattern, "lab", "pattern"),
        Field("ratio", share, "lab"),
    ]
    where = (*roles, *ACROSS)
    pick = Knob("matrix", "choice", where[0], choices=where, help="What the canvas shows.")
    look = [Field("matrix", pick, "lab")]
    if layers:
        layer = int(now.get("layer", 0))
        at = Knob("layer", "int", 0, 0, max(1, layers - 1), help="Whose matrix is shown.")
        own = replace(share, name="layer_ratio", default=ratio, help="Of this layer alone.")
        look.append(Field("layer", at, "lab"))
        look.append(Field(f"ratio.{layer}", own, "lab", "its own ratio"))
    return (
        Section("What goes", tuple(what)),
        Section("Canvas", tuple(look)),
        Section("Retraining (PERP)", _recovery()),
        Section("Files", _files()),
    )


def _recovery() -> tuple[Field, ...]:
    variants = tuple(v for v in VARIANTS)
    knobs = (
        Knob("variant", "choice", "mask_lora", choices=variants, help="Update of the matrices."),
        Knob("norms", "bool", True, help="Train the gains of the norms."),
        Knob("steps", "int", 50, 10, 400, 10, unit="steps", help="Of AdamW, a tenth warm-up."),
    )
    return tuple(Field(knob.name, knob, "lab") for knob in knobs)


def _files() -> tuple[Field, ...]:
    text = Knob("text", "text", "", help="File or folder to calibrate on; empty = the library.")
    folder = Knob("folder", "text", "pruned", help="Where masks and cut-out checkpoints go.")
    bars = Knob("bars", "choice", BARS[0], choices=BARS, help="What the bars of layers show.")
    return (
        Field("text", text, "lab", "calibrate on"),
        Field("folder", folder, "lab"),
        Field("bars", bars, "lab", "layer bars"),
    )


def pruner_of(settings: Mapping[str, Any]) -> Pruner:
    """The criterion as it is set."""
    name = settings.get("pruner", FIRST)
    prefix = f"pruner.{name}."
    knobs = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    return make_method("pruner", name, **knobs)


def layer_ratios(settings: Mapping[str, Any]) -> dict[int, float]:
    """Ratios of single layers that were set."""
    return {
        int(key.removeprefix("ratio.")): value
        for key, value in settings.items()
        if key.startswith("ratio.")
    }
