"""What the decode lab can be told: every setting as a form field, grouped as the lab shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from widgets.controls.form import Field, fields_of, picker
from workbench.core.decoding import Need
from workbench.core.errors import BadInput, closest
from workbench.core.method import DECODING, Knob, find_method, make_method, methods
from workbench.core.sampling import Sampling
from workbench.core.trace import Trace
from workbench.models.devices import device_names

FIRST_CHOICE = {
    "drafter": "draft_model",
    "verifier": "multi_round",
    "policy": "fixed",
    "schedule": "sequential",
}
FAMILY_TITLES = {
    "drafter": "Drafter",
    "policy": "Draft length",
    "verifier": "Verification",
    "schedule": "Schedule",
}
FAMILY_HELP = {
    "drafter": "Who proposes the draft tree.",
    "policy": "How deep and how wide to draft in each round.",
    "verifier": "The rule that keeps or refuses drafted tokens.",
    "schedule": "Whether draft and target wait for each other.",
}
SAMPLING = (
    Knob(
        "temperature",
        "float",
        0.0,
        low=0.0,
        high=2.0,
        step=0.05,
        help="Spread of the draw; 0 = greedy",
    ),
    Knob("top_k", "int", 0, low=0, high=200, unit="tokens", help="Keep the k likeliest; 0 = all"),
    Knob("top_p", "float", 1.0, low=0.05, high=1.0, step=0.05, help="Keep this much mass; 1 = all"),
    Knob("seed", "int", 0, low=0, high=2**31 - 1, help="Of every random draw of the run"),
)
LENGTH = Knob("max_new_tokens", "int", 96, low=1, high=4096, unit="tokens", help="Where to stop")
MODEL = Knob("model", "text", "zoo:target", help="Target: zoo:..., a folder or a hub id")
DRAFT = Knob("draft", "text", "zoo:draft", help="Draft model: zoo:..., a folder or a hub id")
SAME = "same as target"
PROMPT = Knob("prompt", "text", "", help="The text to continue")


class Section(NamedTuple):
    """One block of the form: a title, a method picker if it has one, and the fields below it."""

    name: str
    title: str
    picker: Field | None
    titles: dict[Any, str]  # choice -> how the picker calls it
    fields: tuple[Field, ...]
    about: str


def draft_place() -> Field:
    """Where the draft model stands: with the target, or on a device of this machine."""
    places = (SAME, *device_names())
    words = "Where the draft model runs; what crosses to the target's device is timed"
    knob = Knob("draft_device", "choice", SAME, choices=places, help=words)
    return Field(knob.name, knob, "lab", "draft on")


def placement(model: Any, draft: Any) -> dict[str, str]:
    """The setting that two models stand for that were handed in on two devices."""
    target, place = (getattr(one, "device", "") for one in (model, draft))
    apart = target and place != target and place in device_names()
    return {"draft_device": place} if apart else {}


def all_fields() -> dict[str, Field]:
    """Every setting of the lab by key."""
    found = [Field(k.name, k, "lab") for k in (PROMPT, MODEL, DRAFT, *SAMPLING)]
    found.append(draft_place())
    found.append(Field(LENGTH.name, LENGTH, "lab", "new tokens"))
    for family in DECODING:
        cards = methods(family)
        found.append(picker(family, cards, first_choice(family), FAMILY_HELP[family]))
        found.extend(field for card in cards for field in fields_of(card))
    return {field.key: field for field in found}


def first_choice(family: str) -> str:
    """The method a new lab starts with: the usual one, or the first that is registered."""
    names = [card.name for card in methods(family)]
    return FIRST_CHOICE[family] if FIRST_CHOICE[family] in names else names[0]


def first_settings(
    given: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Defaults, overlaid with ``base`` (settings), overlaid with what the caller gave.

    ``given`` takes setting names, a method's name or an instance of it for ``drafter``,
    ``verifier`` and ``policy``, and dotted knobs of the picked method, e.g. ``{"drafter.k": 8}``.

    Raises:
        BadInput: an unknown setting, with the closest known one.
        BadKnob: a value of the wrong type or outside its range.
        UnknownMethod: with the closest registered name.
    """
    form = all_fields()
    settings = {key: field.knob.default for key, field in form.items()} | dict(base or {})
    for family in DECODING:
        spec = given.get(family, settings[family])
        settings[family] = find_method(family, spec).name if isinstance(spec, str) else spec.name
        if not isinstance(spec, str):
            spec = make_method(family, spec)
            for field in fields_of(spec.card):
                settings[field.key] = getattr(spec, field.knob.name)
    for name, value in given.items():
        if name in DECODING:
            continue
        key = long_key(name, settings)
        if key not in form:
            raise BadInput(f"{name}={value!r}: no such setting.{closest(name, form)}")
        settings[key] = form[key].check(value)
    return settings


def long_key(name: str, settings: Mapping[str, Any]) -> str:
    """``drafter.k`` -> ``drafter.<the picked drafter>.k``; other names as they are."""
    family, _, knob = name.partition(".")
    if family in DECODING and knob and "." not in knob:
        return f"{family}.{settings[family]}.{knob}"
    return name


def settings_of(trace: Trace) -> dict[str, Any]:
    """The settings that a trace was made with, as far as this installation knows its methods."""
    given: dict[str, Any] = {"prompt": trace.prompt, "model": trace.model}
    if trace.max_new_tokens:
        given["max_new_tokens"] = trace.max_new_tokens
    if trace.draft_model:
        given["draft"] = trace.draft_model
        if trace.draft_device != trace.device and trace.draft_device in device_names():
            given["draft_device"] = trace.draft_device
    names = {f.name for f in fields(Sampling)}
    given.update({k: v for k, v in trace.sampling.items() if k in names})
    known = all_fields()
    for family in DECODING:
        method = getattr(trace, family)
        if method.name in (known[family].knob.choices or ()):
            given[family] = method.name
            keys = {f"{family}.{method.name}.{k}": v for k, v in method.knobs.items()}
            given.update({k: v for k, v in keys.items() if k in known})
    for name in ("top_k", "seed", "max_new_tokens"):
        if name in given:
            given[name] = int(given[name])
    return first_settings(given)


def needs_draft(settings: Mapping[str, Any]) -> bool:
    """Whether the picked drafter or policy asks for a draft model."""
    made = make_methods(settings).values()
    return any(Need.DRAFT in getattr(method, "needs", ()) for method in made)


def sections(settings: Mapping[str, Any]) -> list[Section]:
    """The blocks of the form below the prompt, for the methods picked now."""
    form, found = all_fields(), []
    for family, title in FAMILY_TITLES.items():
        card = find_method(family, settings[family])
        titles = {c.name: c.title for c in methods(family)}
        fields_here = fields_of(card)
        if family == "drafter" and needs_draft(settings):
            fields_here += (Field("draft", DRAFT, "lab", "draft model"),)
            fields_here += (draft_place(),) if len(device_names()) > 1 else ()
        if family == "verifier":
            fields_here += tuple(Field(k.name, k, "lab") for k in SAMPLING)
        found.append(Section(family, title, form[family], titles, fields_here, card.summary))
    return found


def section_of(key: str) -> str:
    """The block in which a setting's error is shown."""
    family = key.partition(".")[0]
    if family in DECODING:
        return family
    if key in {k.name for k in SAMPLING}:
        return "verifier"
    drafting = {"draft": "drafter", "draft_device": "drafter"}
    return {**drafting, "model": "model"}.get(key, "prompt")


def make_methods(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The drafter, verifier and policy that the settings describe."""
    made = {}
    for family in DECODING:
        card = find_method(family, settings[family])
        values = {f.knob.name: settings[f.key] for f in fields_of(card)}
        made[family] = card.make(**values)
    return made


def make_sampling(settings: Mapping[str, Any]) -> Sampling:
    return Sampling(**{k.name: settings[k.name] for k in SAMPLING})
