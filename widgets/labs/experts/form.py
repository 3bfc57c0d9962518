"""The expert lab's forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from widgets.controls.form import Field, fields_of, picker
from widgets.labs.board import Section
from widgets.labs.experts.pictures import SHOWN
from workbench.core.method import Knob, find_method, make_method, methods

SCOPES = ("this token, this layer", "this token", "this layer", "everywhere")
FIRST = "flow"  # picture
FLOW = "router.expertflow."
LINK = {"gb_per_s": "link GB/s", "latency_us": "latency µs", "compute_us": "layer µs"}
CACHE_KNOBS = ("capacity", "policy", "predictor", "ahead", *LINK)
PREDICTOR_STEPS = 150
MEAN = "mean_experts"


def sections(
    rule: str, show: str, text: str, experts: int, mean: float | None = None
) -> tuple[Section, ...]:
    """Text, rule, interventions, what is drawn, and the cache.

    Args:
        rule: the router whose knobs are shown.
        show: the picture; the cache's knobs come with its own.
        experts: of a layer; no slider offers more.
        mean: experts a token under top-p, where they are known; setting it sets p.
    """
    cards = [card for card in methods("router") if getattr(card.maker, "steers", True)]
    knobs = tuple(_fitted(field, experts) for field in fields_of(find_method("router", rule)))
    if mean is not None:
        aim = "Experts a token in the mean; finds p on the text's routing."
        knob = Knob(
            MEAN, "float", round(mean, 2), 1.0, float(experts), 0.05, unit="experts", help=aim
        )
        knobs = (*knobs, Field(MEAN, knob, "lab", "mean experts"))
    line = Knob("text", "text", text, help="Text whose routing is shown.")
    scope = Knob("scope", "choice", SCOPES[0], choices=SCOPES, help="Where the next one acts.")
    factor = Knob("factor", "float", 0.5, 0.0, 4.0, 0.05, help="What Re-weight multiplies by.")
    pick = Knob("show", "choice", FIRST, choices=tuple(SHOWN), help="What is drawn.")
    flow = fields_of(find_method("router", "expertflow"))
    cache = tuple(
        replace(_fitted(field, experts), label=LINK.get(field.knob.name, ""))
        for field in flow
        if field.knob.name in CACHE_KNOBS
    )
    return (
        Section("Text", (Field("text", line, "lab"),)),
        Section("Routing", (picker("router", cards, "top_k", "Rule of all layers."), *knobs)),
        Section("Intervention", (Field("scope", scope, "lab"), Field("factor", factor, "lab"))),
        Section("Picture below", (Field("show", pick, "lab"),)),
        *((Section("Expert cache", cache),) if show == "cache" else ()),
    )


def _fitted(field: Field, experts: int) -> Field:
    """No more experts on a slider than the model has."""
    if field.knob.high is None or not field.knob.unit.startswith("experts"):
        return field
    return replace(field, knob=replace(field.knob, high=min(field.knob.high, experts)))


def chosen(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The knobs of one router that are set."""
    prefix = f"router.{name}."
    return {
        key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)
    }


def expertflow(settings: Mapping[str, Any]) -> Any:
    """The method as it is set, its predictor fitted quickly."""
    return make_method(
        "router", "expertflow", **chosen(settings, "expertflow"), steps=PREDICTOR_STEPS
    )
