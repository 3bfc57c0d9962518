"""The arena's forms: one for each thing that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from widgets.controls.form import Field, Many
from widgets.labs.board import Section
from workbench.bench.datasets import TURNS
from workbench.bench.roofline import KNOWN
from workbench.core.errors import BadInput
from workbench.core.method import Knob, methods
from workbench.models.devices import device_names
from workbench.zoo.held_out import KINDS

SHOWN = {
    "arena": "Methods compared",
    "cost": "Cost of a pass, measured",
    "elsewhere": "Other hardware",
    "tune": "Tuning",
}
FILE = "file"
PROMPTS = {
    **{f"zoo:{kind}": f"held-out: {kind}" for kind in KINDS},
    "zoo": "held-out: all kinds",
    FILE: "a JSONL file",
}
OWN = "own"
HARDWARE = {**{one.name: one.name for one in KNOWN}, OWN: "numbers of my own"}
BESIDE, APART = "one device", "draft apart"
PLACES = {BESIDE: "draft and target on one device", APART: "draft on another device"}
PICTURES = {
    "depth": "acceptance by depth",
    "quality": "speed against likelihood",
}
WITH = "with the target"
DRAFTERS = ("token_recycling", "prompt_lookup", "draft_model")
MOST_NEW = 4096


def _field(name: str, kind: str, default: Any, help: str, label: str = "", **more: Any) -> Field:
    return Field(name, Knob(name, kind, default, help=help, **more), "arena", label)


def _line(name: str, default: str, help: str, label: str = "") -> Field:
    return _field(name, "text", default, help, label)


def _whole(name: str, default: int, low: int, high: int, help: str, **more: Any) -> Field:
    return _field(name, "int", default, help, low=low, high=high, **more)


def _choice(name: str, choices: Sequence[str], default: str, help: str, label: str = "") -> Field:
    return _field(name, "choice", default, help, label, choices=tuple(choices))


def _many(name: str, family: str, default: tuple[str, ...], help: str) -> Field:
    names = tuple(card.name for card in methods(family) if card.name != "none")
    return Many(name, Knob(name, "choice", default, choices=names, help=help), "arena")


def sections(settings: Mapping[str, Any], cells: Sequence[str]) -> tuple[Section, ...]:
    """The left column.

    Args:
        settings: what was set; decides which fields there are.
        cells: ids of the configurations that can be looked at.
    """
    show = settings.get("show", "arena")
    pick = _choice("show", tuple(SHOWN), "arena", "What this page measures and shows.", "view")
    parts = {"arena": _arena, "cost": _cost, "elsewhere": _elsewhere, "tune": _tune}
    return Section("Show", (pick,)), *parts[show](settings, cells)


def _every() -> dict[str, Field]:
    """Key -> field, of every form with all that it can have."""
    full = {"prompts": FILE, "hardware": OWN, "placement": APART}
    found = {
        field.key: field
        for show in SHOWN
        for section in sections({**full, "show": show}, ())
        for field in section.fields
    }
    return {**found, "draft_on": _draft_on()}


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields, each in its type.

    Raises:
        BadInput: no such field. BadKnob: a value that it does not take.
    """
    fields = _every()
    for key, value in settings.items():
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise BadInput(f"{key}={value!r}: no such setting; there are {known}")
    return {key: fields[key].check(value) for key, value in settings.items()}


@cache
def defaults() -> dict[str, Any]:
    """Of every field of every form."""
    return {key: field.knob.default for key, field in _every().items()}


def _models() -> tuple[Field, ...]:
    return (
        _line("targets", "zoo:target", "Checkpoints, names or folders, between commas."),
        _line("draft", "zoo:draft", "Checkpoints that draft, between commas; empty = none."),
        *((_draft_on(),) if len(device_names()) > 1 else ()),
    )


def _draft_on() -> Field:
    """Where drafts stand; only where there is a choice."""
    told = "Where a draft runs, each place compared; cost and tuning take the first."
    knob = Knob("draft_on", "choice", (WITH,), choices=(WITH, *device_names()), help=told)
    return Many("draft_on", knob, "arena", "draft on")


def _text(settings: Mapping[str, Any]) -> tuple[Field, ...]:
    pick = _choice("prompts", tuple(PROMPTS), "zoo:code", "What is continued.")
    file = (
        _line("path", "", "Of a .jsonl file: Spec-Bench's questions, or any with a text field."),
        _choice("turns", TURNS, "first", "Of a conversation: its first question, or all."),
        _field("skip_broken", "bool", False, "Leave broken lines out and count them.",
               "skip broken lines"),
    )  # fmt: skip
    return (
        pick,
        *(file if settings.get("prompts") == FILE else ()),
        _whole("per_kind", 2, 1, 10_000, "Only the first prompts of each kind.", label="per kind"),
    )


def _length() -> tuple[Field, ...]:
    return (
        _line("temperatures", "0", "Between commas; 0 takes the likeliest token.", "temperature"),
        _whole("new_tokens", 48, 1, MOST_NEW, "Decoded in a measurement.", unit="tokens"),
    )


def _arena(settings: Mapping[str, Any], cells: Sequence[str]) -> tuple[Section, ...]:
    compared = (
        *_models(),
        _many("drafters", "drafter", DRAFTERS, "Who drafts."),
        _many("verifiers", "verifier", ("exact_match",), "The rule that accepts."),
        _many("policies", "policy", ("fixed",), "How long a draft is."),
        _line("knobs", "", "Values to try, FAMILY.KNOB=VALUES: policy.depth=2,4; rest.longest=8."),
    )
    more = (
        _whole("repeats", 3, 1, 100, "How often each configuration meets each prompt."),
        _field("carry", "bool", False, "Drafters keep their state over the prompts of a repeat.",
               "drafters keep their state"),
    )  # fmt: skip
    shown = (
        _choice("cell", ("", *cells), "", "Whose numbers stand on the right.", "details of"),
        _choice("picture", tuple(PICTURES), "depth", "The picture at the lower right."),
        _line("folder", "", "Keeps the measurements; empty = a folder of its own for each grid."),
    )
    return (
        Section("What is compared", compared),
        Section("On what", (*_text(settings), *_length(), *more)),
        Section("Results", shown),
    )


def _cost(settings: Mapping[str, Any], cells: Sequence[str]) -> tuple[Section, ...]:
    names = tuple(card.name for card in methods("drafter") if card.name != "none")
    verifiers = tuple(card.name for card in methods("verifier"))
    chosen = (
        *_models(),
        _choice("cost_drafter", names, "token_recycling", "Who drafts.", "drafter"),
        _choice("cost_verifier", verifiers, "exact_match", "The rule.", "verifier"),
    )
    rounds = _whole("cost_repeats", 2, 1, 50, "Of every prompt and size.", label="repeats")
    return (
        Section("What is measured", chosen),
        Section("On what", (*_text(settings), *_length(), rounds)),
    )


def _elsewhere(settings: Mapping[str, Any], cells: Sequence[str]) -> tuple[Section, ...]:
    names = tuple(HARDWARE)
    number: dict[str, Any] = {"kind": "float", "low": 0.001, "high": 1e6}
    own = (
        _field("bandwidth_gb_s", default=900.0, help="Of the memory.", unit="GB/s",
               label="memory GB/s", **number),
        _field("tflops", default=150.0, help="Dense products in the dtype used.",
               unit="TFLOP/s", label="TFLOP/s", **number),
        _field("link_gb_s", default=32.0, help="To the device of the draft.", unit="GB/s",
               label="link GB/s", **number),
    )  # fmt: skip
    apart = _choice("draft_hardware", tuple(one.name for one in KNOWN), KNOWN[-1].name,
                    "Where the draft model runs.", "draft on")  # fmt: skip
    place = (
        _choice("hardware", names, KNOWN[1].name, "Where the target runs.", "target on"),
        *(own if settings.get("hardware") == OWN else ()),
        _choice("placement", tuple(PLACES), BESIDE, "Where the draft stands."),
        *((apart,) if settings.get("placement") == APART else ()),
    )
    models = (
        _field("target_b", "float", 7.0, "Parameters.", "target, 10⁹", low=0.001, high=2000.0,
               step=0.1),
        _field("draft_b", "float", 0.5, "Parameters; 0 = the draft runs no model.",
               "draft, 10⁹", low=0.0, high=2000.0, step=0.1),
        _field("bits", "float", 16.0, "Stored for a parameter.", "bits each", low=1.0, high=32.0,
               step=1.0),
        _whole("vocabulary", 32_000, 2, 1_000_000, "Tokens of a law.", unit="tokens"),
        _whole("context", 512, 1, 1_000_000, "Stored tokens.", unit="tokens"),
    )  # fmt: skip
    return Section("Hardware", place), Section("Models", models)


def _tune(settings: Mapping[str, Any], cells: Sequence[str]) -> tuple[Section, ...]:
    chosen = (
        *_models(),
        _many("drafters", "drafter", DRAFTERS, "Who may draft."),
        _many("policies", "policy", ("fixed",), "What may decide the length."),
    )
    search = (
        _whole("trials", 20, 1, 10_000, "Configurations tried."),
        _whole("finalists", 2, 1, 20, "Of them, measured again at the end."),
        _line("tune_folder", "", "Keeps the search; empty = a folder of its own for each search.",
              "folder"),
    )  # fmt: skip
    return (
        Section("What may be chosen", chosen),
        Section("On what", (*_text(settings), *_length())),
        Section("Search", search),
    )
