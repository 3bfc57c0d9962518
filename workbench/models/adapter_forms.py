"""peft's own tuners as forms: every simple field of a configuration becomes a knob."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

import workbench.models.tuners  # noqa: F401 - registers our own types
from workbench.core.errors import BadKnob, UnknownMethod, closest
from workbench.core.method import Knob
from workbench.models.virtual_tokens import VIRTUAL_TYPES

# Fields that are about the place of use, or that the lab decides itself.
_NOT_KNOBS = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "auto_mapping",
    "target_modules",
    "feedforward_modules",
    "exclude_modules",
    "layers_pattern",
    "modules_to_save",
    "megatron_core",
}
_NOT_ALONE = {"XLORA", "POLY", "SHADOW"}  # need other adapters, task numbers, or a network beside
_VIRTUAL_TOKENS = 16  # peft has no default
_KINDS = {bool: "bool", int: "int", float: "float", str: "text"}


def tuner_types() -> tuple[str, ...]:
    """Names of the types that change weights or put virtual tokens in front of a text, sorted."""
    changing = {
        _plain(name)
        for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()
        if hasattr(tuner, "tuner_layer_cls")
    }
    return tuple(sorted((changing | set(VIRTUAL_TYPES)) - _NOT_ALONE))


def takes_targets(peft_type: str) -> bool:
    """Whether a type changes chosen modules."""
    return "target_modules" in {one.name for one in dataclasses.fields(_class(peft_type))}


def _plain(name: Any) -> str:
    return str(getattr(name, "value", name))


def _class(peft_type: str) -> type:
    known = {_plain(name): made for name, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if peft_type not in known:
        raise UnknownMethod(
            f"peft_type={peft_type!r} is not known.{closest(peft_type, known)}"
            f" Known: {', '.join(sorted(known))}"
        )
    return known[peft_type]


def config_knobs(peft_type: str) -> tuple[Knob, ...]:
    """The knobs of one type, in the order of its configuration, with peft's own help.

    Booleans, numbers, texts and choices between texts; a field that takes anything else keeps its
    default. A number has no range, since peft states none.
    """
    made = _class(peft_type)
    hints = typing.get_type_hints(made)
    found = []
    for one in dataclasses.fields(made):
        if one.name in _NOT_KNOBS or not one.init:
            continue
        knob = _knob(one, hints.get(one.name, Any))
        if knob is not None:
            found.append(knob)
    return tuple(found)


def _knob(one: dataclasses.Field, hint: Any) -> Knob | None:
    default = one.default
    about = " ".join(str(one.metadata.get("help", "")).split()) or f"peft's {one.name}."
    if one.name == "num_virtual_tokens":
        return Knob(one.name, "int", _VIRTUAL_TOKENS, low=1, unit="virtual tokens", help=about)
    choices = _choices(hint)
    if choices and default in choices:
        return Knob(one.name, "choice", default, choices=choices, help=about)
    kind = _KINDS.get(type(default))
    if kind is None or (kind == "text" and choices):
        return None
    low = 1 if one.name in ("r", "rank") and default else None
    return Knob(one.name, kind, default, low=low, help=about)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The texts (and truth values beside them) of a Literal, also inside a union."""
    options: list[Any] = []
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is typing.Literal:
            options += typing.get_args(part)
        elif part is bool and part is not hint:
            options += [True, False]
    texts = [option for option in dict.fromkeys(options) if isinstance(option, (str, bool))]
    return tuple(texts) if any(isinstance(option, str) for option in texts) else ()


def peft_config(peft_type: str, **values: Any) -> Any:
    """A configuration by the name of its type.

    Raises:
        UnknownMethod, BadKnob: an unknown type, or values that peft refuses.
    """
    made = _class(peft_type)
    known = {one.name for one in dataclasses.fields(made)}
    for name in values:
        if name not in known:
            raise BadKnob(f"{peft_type} has no field {name!r}.{closest(name, known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return made(**values)
    except (ValueError, TypeError) as error:
        raise BadKnob(f"{peft_type}: {' '.join(str(error).split())}") from None
