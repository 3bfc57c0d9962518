"""One neutral description of a form, built from knobs; the hosts only draw it.

*Idea*: a method's dataclass is the single source of its form. This module turns ``Knob`` metadata
into ``Field`` values (what control, label, help, check); ``ipywidgets_form`` and ``panel_form``
turn ``Field`` values into widgets and hold no rule of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.core.errors import BadKnob, closest
from workbench.core.method import Knob, MethodCard

Control = Literal["slider", "number", "switch", "choice", "line", "many"]
SLIDER_STOPS = 400  # more positions than this cannot be hit with a mouse: a number box instead
BESIDE_LETTERS = 9  # of a choice that can be read in the half column beside its name


@dataclass(frozen=True)
class Field:
    """One row of a form.

    Args:
        key: where the value lives in a lab's settings, e.g. ``drafter.token_recycling.nodes``.
        knob: type, range, unit and help.
        owner: named in error messages, e.g. ``token_recycling``.
        label: what the row is called; the knob's name in words unless given.
    """

    key: str
    knob: Knob
    owner: str
    label: str = ""

    @property
    def title(self) -> str:
        return self.label or self.knob.name.replace("_", " ")

    @property
    def control(self) -> Control:
        """A slider where both ends are known and every stop can be hit; else what fits the type."""
        kind = self.knob.kind
        fixed = {"bool": "switch", "choice": "choice", "method": "choice", "text": "line"}
        if kind in fixed:
            return fixed[kind]
        if self.knob.low is None or self.knob.high is None:
            return "number"
        stops = (self.knob.high - self.knob.low) / self.step
        return "slider" if stops <= SLIDER_STOPS else "number"

    @property
    def step(self) -> float:
        """Distance between stops: the knob's own, else 1 or a hundredth of the range."""
        if self.knob.step:
            return self.knob.step
        if self.knob.kind == "int":
            return 1
        if self.knob.low is None or self.knob.high is None:
            return 0.1
        return (self.knob.high - self.knob.low) / 100

    @property
    def help(self) -> str:
        """Help, unit, range and default in one line, for a tooltip and for a screen reader."""
        knob, parts = self.knob, [self.knob.help.rstrip(".") + "."]
        if knob.low is not None and knob.high is not None:
            unit = f" {knob.unit}" if knob.unit else ""
            parts.append(f"{knob.low} to {knob.high}{unit}.")
        elif knob.unit:
            parts.append(f"In {knob.unit}.")
        parts.append(f"Default {knob.default}.")
        return " ".join(parts)

    def show(self, value: Any) -> str:
        """The value as it is printed beside a slider; as many decimals as the step needs."""
        if self.knob.kind != "float":
            return str(value)
        digits = max(1, min(6, len(f"{self.step:.6f}".rstrip("0").partition(".")[2])))
        return f"{value:.{digits}f}"

    def check(self, value: Any) -> Any:
        """The value in the knob's type, or ``BadKnob`` naming the owner, the value and the fix."""
        return self.knob.check(value, self.owner)


@dataclass(frozen=True)
class Many(Field):
    """A row that takes several of the knob's choices; its value is a tuple in their given order."""

    @property
    def control(self) -> Control:
        return "many"

    def show(self, value: Any) -> str:
        return ", ".join(map(str, value))

    def check(self, value: Any) -> Any:
        """The choices, each once, or ``BadKnob`` naming the one that is not there."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not given:
            raise BadKnob(f"{self.title}={value!r}: choose at least one")
        known = [str(choice) for choice in self.knob.options or ()]
        for one in given:
            if one not in known:
                raise BadKnob(
                    f"{self.title}={one!r} is not known.{closest(str(one), known)}"
                    f" There are {', '.join(known)}"
                )
        return tuple(dict.fromkeys(given))


def fields_of(card: MethodCard) -> tuple[Field, ...]:
    """The form of one method, in the order of its dataclass."""
    return tuple(
        Field(f"{card.family}.{card.name}.{knob.name}", knob, card.name) for knob in card.knobs
    )


def picker(key: str, cards: Sequence[MethodCard], default: str, help: str) -> Field:
    """A choice between methods of one family."""
    names = tuple(card.name for card in cards)
    return Field(key, Knob(key, "choice", default, choices=names, help=help), "lab")


def option_labels(field: Field, titles: dict[Any, str]) -> dict[str, Any]:
    """Label -> value of a choice, in order, ready for either host's select."""
    return {titles.get(choice, str(choice)): choice for choice in field.knob.options or ()}


def is_stacked(field: Field, titles: dict[Any, str]) -> bool:
    """Whether a choice stands under its name, as its words would be cut off beside it."""
    if field.control == "many":
        return True
    labels = option_labels(field, titles)
    return field.control == "choice" and max(map(len, labels), default=0) > BESIDE_LETTERS


def same_control(one: Field, other: Field, titles: dict[Any, str]) -> bool:
    """Whether a control that shows ``one`` can go on as that of ``other``, with other choices."""
    alike = one.key == other.key and one.control == other.control
    stays = is_stacked(one, titles) == is_stacked(other, titles)
    return alike and stays and one.knob.kind == other.knob.kind
