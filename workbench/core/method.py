"""A method is a frozen dataclass of knobs; the registry finds it by family and name.

*Idea*: everything that shows or checks a method (picker, form, docs table, conformance suite,
arena) reads the registry, so that adding a method is one new file and no edit elsewhere.

Example:
    >>> @method("policy", title="Three", paper=None)
    ... class Three:
    ...     depth: int = knob(3, low=1, high=16, unit="tokens", help="Draft depth.")
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from workbench.core.errors import BadKnob, UnknownMethod, closest

FAMILIES = {
    "drafter": "workbench.drafters",
    "verifier": "workbench.verifiers",
    "policy": "workbench.policies",
    "schedule": "workbench.engine.schedules",
    "adapter": "workbench.adapters",
    "operation": "workbench.adapters.operations",
    "pruner": "workbench.pruning",
    "router": "workbench.moe",
}
DECODING = ("drafter", "verifier", "policy", "schedule")  # the families that make up a run
_REGISTRY: dict[tuple[str, str], MethodCard] = {}


@dataclass(frozen=True)
class Paper:
    """Where a method comes from. ``arxiv`` is the identifier, e.g. ``2408.08696``."""

    title: str
    year: int
    arxiv: str = ""
    section: str = ""

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


@dataclass(frozen=True)
class Knob:
    """What a form, a check and the documentation need to know about one dataclass field."""

    name: str
    kind: str  # "int" | "float" | "bool" | "choice" | "text" | "method"
    default: Any
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] | None = None
    unit: str = ""
    help: str = ""
    family: str = ""  # of a "method" knob: a registered name of this family, or an instance

    @property
    def options(self) -> tuple[Any, ...] | None:
        """What a form offers: the choices, or the registered names of the family."""
        if self.kind == "method":
            return tuple(card.name for card in methods(self.family))
        return self.choices

    def check(self, value: Any, owner: str) -> Any:
        """Return ``value`` in the knob's type, or raise :class:`BadKnob` with the fix."""
        name = f"{owner}.{self.name}"
        if self.kind == "method":
            if isinstance(value, str):
                find_method(self.family, value)
            elif isinstance(value, dict) and "name" in value:  # as traces store it
                return make_method(self.family, value["name"], **value.get("knobs", {}))
            elif getattr(value, "family", None) != self.family:
                raise BadKnob(f"{name}={value!r}: expected a {self.family} or its name")
            return value
        if self.kind == "choice":
            if value not in self.choices:
                raise BadKnob(f"{name}={value!r}: choose one of {list(self.choices)}")
            return value
        if self.kind == "bool":
            if not isinstance(value, bool):
                raise BadKnob(f"{name}={value!r}: expected true or false")
            return value
        if self.kind == "text":
            if not isinstance(value, str):
                raise BadKnob(f"{name}={value!r}: expected text")
            return value
        return self._check_number(value, name)

    def _check_number(self, value: Any, name: str) -> Any:
        wanted = "a whole number" if self.kind == "int" else "a number"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadKnob(f"{name}={value!r}: expected {wanted}")
        if not math.isfinite(value) or (self.kind == "int" and value != int(value)):
            raise BadKnob(f"{name}={value!r}: expected {wanted}")
        below = self.low is not None and value < self.low
        above = self.high is not None and value > self.high
        if below or above:
            unit = f" {self.unit}" if self.unit else ""
            raise BadKnob(f"{name}={value!r}: must lie in [{self.low}, {self.high}]{unit}")
        return int(value) if self.kind == "int" else float(value)

    def parse(self, text: str, owner: str) -> Any:
        """Read a value typed on a command line (``--set drafter.k=8``)."""
        if self.kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if self.kind == "choice":
            for choice in self.choices:
                if str(choice) == text:
                    return choice
        if self.kind in ("int", "float"):
            try:
                return self.check(float(text), owner)
            except ValueError as error:
                if isinstance(error, BadKnob):
                    raise
        return self.check(text, owner)


@dataclass(frozen=True)
class MethodCard:
    """One registry entry. ``maker`` is the frozen dataclass itself."""

    family: str
    name: str
    title: str
    paper: Paper | None
    maker: type
    knobs: tuple[Knob, ...]

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        return (self.maker.__doc__ or "").strip().split("\n")[0]

    def make(self, **values: Any):
        """Build the method with checked knobs; unknown names are offered the closest one."""
        known = {k.name: k for k in self.knobs}
        for name in values:
            if name not in known:
                raise BadKnob(
                    f"{self.name} has no knob {name!r}.{closest(name, known)}"
                    f" Knobs: {', '.join(known) or 'none'}"
                )
        return self.maker(**values)

    def to_json(self) -> dict:
        """The row that ``workbench methods --json`` prints."""
        knobs = []
        for k in self.knobs:
            row = {f.name: getattr(k, f.name) for f in fields(k)}
            knobs.append({key: value for key, value in row.items() if value not in (None, "")})
        return {
            "family": self.family,
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "paper": dataclasses.asdict(self.paper) if self.paper else None,
            "needs": sorted(n.value for n in getattr(self.maker(), "needs", ())),
            "lossless": getattr(self.maker, "lossless", None),
            "knobs": knobs,
        }


def knob(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: tuple[Any, ...] | None = None,
    unit: str = "",
    help: str,
    family: str = "",
) -> Any:
    """A dataclass field whose metadata builds the form, the check, the JSON and the docs.

    With ``family`` the knob holds another method: a registered name (checked when it is made, as
    the registry may still be filling up) or an instance.
    """
    meta = {
        "low": low,
        "high": high,
        "step": step,
        "choices": choices,
        "unit": unit,
        "help": help,
        "family": family,
    }
    return dataclasses.field(default=default, metadata={"knob": meta})


def _kind(default: Any, choices: tuple | None, family: str) -> str:
    if family:
        return "method"
    if choices is not None:
        return "choice"
    for kind, python_type in (("bool", bool), ("int", int), ("float", float), ("text", str)):
        if isinstance(default, python_type):
            return kind
    raise TypeError(f"knob default {default!r}: use bool, int, float, str or choices")


def _knobs_of(maker: type) -> tuple[Knob, ...]:
    found = []
    for field in fields(maker):
        if "knob" in field.metadata:
            meta = field.metadata["knob"]
            kind = _kind(field.default, meta["choices"], meta["family"])
            found.append(Knob(field.name, kind, field.default, **meta))
    return tuple(found)


def method(family: str, *, title: str, paper: Paper | None, name: str | None = None):
    """Class decorator: freeze the dataclass, check knobs on construction, register it.

    The registered name defaults to the module's file name, so the two cannot drift apart.
    """
    _known(family)

    def decorate(cls: type) -> type:
        label = name or cls.__module__.rsplit(".", 1)[-1]

        def __post_init__(self) -> None:
            for k in self.__class__.card.knobs:
                object.__setattr__(self, k.name, k.check(getattr(self, k.name), label))
            check = getattr(self, "check_knobs", None)
            if check:
                check()

        cls.__post_init__ = __post_init__
        frozen = dataclass(frozen=True)(cls)
        frozen.family, frozen.name = family, label
        frozen.card = MethodCard(family, label, title, paper, frozen, _knobs_of(frozen))
        _REGISTRY[family, label] = frozen.card
        return frozen

    return decorate


def _known(family: str) -> str:
    if family not in FAMILIES:
        raise UnknownMethod(f"family={family!r}: one of {sorted(FAMILIES)}")
    return family


@cache
def _discover(family: str) -> None:
    """Import one family's files: who decodes need not wait for the adapters' libraries."""
    package = importlib.import_module(FAMILIES[family])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{FAMILIES[family]}.{module.name}")
    _load_entry_points()


@cache
def _load_entry_points() -> None:
    for point in entry_points(group="workbench.methods"):
        point.load()


def methods(family: str | None = None) -> list[MethodCard]:
    """Every registered method, of one family if named, sorted by family and name."""
    for one in FAMILIES if family is None else (_known(family),):
        _discover(one)
    cards = [c for c in _REGISTRY.values() if family in (None, c.family)]
    return sorted(cards, key=lambda c: (list(FAMILIES).index(c.family), c.name))


def find_method(family: str, name: str) -> MethodCard:
    """The card of one method.

    Raises:
        UnknownMethod: with the closest registered name.
    """
    _discover(_known(family))
    try:
        return _REGISTRY[family, name]
    except KeyError:
        known = [c.name for c in methods(family)]
        raise UnknownMethod(
            f"{family}={name!r} is not known.{closest(name, known)} Known: {', '.join(known)}"
        ) from None


def make_method(family: str, spec: Any, **knobs: Any):
    """An instance from a name, or ``spec`` itself where it already is one."""
    if isinstance(spec, str):
        return find_method(family, spec).make(**knobs)
    if getattr(spec, "family", None) != family:
        raise UnknownMethod(f"{family}={spec!r}: expected a {family} or its name")
    return dataclasses.replace(spec, **knobs) if knobs else spec
