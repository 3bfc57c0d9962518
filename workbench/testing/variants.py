"""Instances of a method that differ in one knob each, found from the knobs themselves."""

from __future__ import annotations

from workbench.core.errors import BadKnob
from workbench.core.method import Knob, MethodCard


def variants(card: MethodCard) -> list:
    """The default instance and, for each knob, one instance for each other value worth trying.

    Methods with trained heads are tried untrained: no head fits the tiny models of the suites, and
    a method must be exact whatever its heads say.
    """
    fixed = {"heads": "untrained"} if any(knob.name == "heads" for knob in card.knobs) else {}
    made = [card.make(**fixed)]
    for knob in card.knobs:
        for value in other_values(knob):
            try:
                made.append(card.make(**{**fixed, knob.name: value}))
            except BadKnob:  # two knobs that contradict each other
                continue
    return made


def other_values(knob: Knob) -> list:
    """Every other choice; the two ends of a range (a small number where it has no end)."""
    if knob.kind == "choice":
        return [choice for choice in knob.choices if choice != knob.default]
    if knob.kind == "bool":
        return [not knob.default]
    if knob.kind == "text":
        return []
    ends = (knob.low, knob.high)
    return [end for end in dict.fromkeys(ends) if end is not None and end != knob.default]


def name_of(instance) -> str:
    """``rejection`` or ``token_recycling(k=1)``: what a test report shows."""
    changed = [
        f"{k.name}={getattr(instance, k.name)}"
        for k in instance.card.knobs
        if getattr(instance, k.name) not in (k.default, "untrained")
    ]
    return f"{instance.name}({','.join(changed)})" if changed else instance.name
