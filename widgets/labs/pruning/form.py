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
# How what is left is repaired: PERP on text, PERP block by block, CFSP's LoRA by importance.
RECIPES = ("on text", "block by block", "LoRA by importance")
# Settings that change no model.
QUIET = ("matrix", "layer", "bars", "recipe", "variant", "norms", "steps", "folder")


def sections(
    now: Mapping[str, Any],
    layers: int,
    roles: tuple[str, ...],
    across: tuple[str, ...] = tuple(ACROSS),
) -> tuple[Section, ...]:
    """What goes, where the hand paints, retraining, and where things are saved.

    Args:
        now: what has been set.
        layers: of the model; 0 = not loaded yet.
        roles: the matrices that a layer has.
        across: keys of :data:`ACROSS` that the model has.
    """
    name = now.get("pruner", FIRST)
    acts_on = find_method("pruner", name).make().acts_on
    choices = PATTERNS[acts_on]
    first = FIRST_PATTERN.get(acts_on, choices[0])
    pattern = Knob("pattern", "choice", first, choices=choices, help="What scores compete within.")
    share = Knob("ratio", "float", 0.0, 0.0, MOST_RATIO, 0.05, help="Share that goes.")
    groups = str(now.get(f"pattern.{acts_on}", first))
    fixed = ":" in groups
    what = [
        picker("pruner", methods("pruner"), FIRST, "What decides which weights go."),
        *fields_of(find_method("pruner", name)),
        Field(f"pattern.{acts_on}", pattern, "lab", "pattern"),
        _stays(groups) if fixed else Field("ratio", share, "lab"),
    ]
    where = (*roles, *across)
    pick = Knob("matrix", "choice", where[0], choices=where, help="What the canvas shows.")
    look = [Field("matrix", pick, "lab")]
    if layers:
        at = Knob("layer", "int", 0, 0, max(1, layers - 1), help="Whose matrix is shown.")
        own = replace(share, name="layer_ratio", help="Of this layer alone.")
        look.append(Field("layer", at, "lab"))
        look += [] if fixed else [Field("layer_ratio", own, "lab", "its own ratio")]
    return (
        Section("What goes", tuple(what)),
        Section("Canvas", tuple(look)),
        Section("Retraining", _recovery(now.get("recipe", RECIPES[0]))),
        Section("Files", _files()),
    )


def _stays(groups: str) -> Field:
    """In the place of the ratio: N:M says itself how much stays."""
    keep, _, of = groups.partition(":")
    said = f"{int(keep) / int(of):.0%}, {keep} of every {of}"
    told = "N:M fixes what stays of every group, so no ratio applies."
    return Field("stays", Knob("stays", "choice", said, choices=(said,), help=told), "lab")


def _recovery(recipe: str) -> tuple[Field, ...]:
    kinds = "PERP on text, PERP against the dense blocks, or CFSP's (whole parts only)."
    each = "Of each block." if recipe == RECIPES[1] else "Pressed again, it goes on."
    knobs = [
        Knob("recipe", "choice", RECIPES[0], choices=RECIPES, help=kinds),
        Knob("variant", "choice", "mask_lora", choices=VARIANTS, help="Update of the matrices."),
        Knob("norms", "bool", True, help="Train the gains of the norms."),
        Knob("steps", "int", 50, 10, 400, 10, unit="steps", help=each),
    ]
    if recipe == RECIPES[2]:  # has an update of its own
        knobs = [knobs[0], knobs[3]]
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
