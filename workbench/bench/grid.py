"""What an arena compares: a frozen grid, the cells that it expands to, and those that cannot run.

*Idea*: a cell is a whole configuration with an id made from its content, so that a sweep knows
what it has measured whatever the order of the grid. Knobs apply where a method has them; cells
that come out the same are one cell. Plain decoding is a cell of every target and sampling.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workbench.bench.datasets import PromptSet
from workbench.core.decoding import Need
from workbench.core.errors import BadInput, BadKnob, closest
from workbench.core.method import DECODING, make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Method
from workbench.engine.run import describe

PLAIN = {"drafter": "none", "verifier": "exact_match", "policy": "fixed", "schedule": "sequential"}


@dataclass(frozen=True)
class Setting:
    """What all cells of a grid share: how much is decoded, and where.

    Args:
        new_tokens: generated per measurement.
        ignore_eos: go on after the end of the text, so that every cell decodes as much.
        carry: a drafter keeps its state over the prompts of a repeat, where it can.
        seed: of the draws; every cell sees the same one for the same prompt and repeat.
        threads: of torch on the CPU.
    """

    new_tokens: int = 96
    ignore_eos: bool = True
    carry: bool = False
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in (("new_tokens", self.new_tokens), ("threads", self.threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadInput(f"{name}={value!r}: must be a whole number, 1 or more")

    def sampling(self, cell: Cell, repeat: int, place: int) -> Sampling:
        """The cell's sampling with the seed of this prompt and repeat."""
        return dataclasses.replace(cell.sampling, seed=self.seed + 1_000_003 * repeat + place)


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration: models, four methods and their knobs, and how tokens are drawn."""

    target: str
    draft: str  # "" where no method needs one
    drafter: Method
    verifier: Method
    policy: Method
    schedule: Method
    sampling: Sampling
    draft_device: str = ""  # where the draft stands; "" = with the target

    def to_json(self) -> dict[str, Any]:
        plain = {"name", "knobs"}
        methods = {f: {k: getattr(getattr(self, f), k) for k in sorted(plain)} for f in DECODING}
        drawn = dataclasses.asdict(self.sampling)
        del drawn["seed"]
        # Only where it was chosen: ids of cells that leave it open are those of before.
        placed = {"draft_device": self.draft_device} if self.draft_device else {}
        return {"target": self.target, "draft": self.draft, **placed, **methods, "sampling": drawn}

    @cached_property
    def id(self) -> str:
        """12 hex digits over the content; the same configuration has the same id everywhere."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def plain(self) -> bool:
        """Whether this is plain decoding, what the others are divided by."""
        return self.drafter.name == "none"

    @property
    def group(self) -> tuple[str, Sampling]:
        """What it shares with its baseline."""
        return self.target, self.sampling

    @property
    def place(self) -> str:
        """Target and temperature, which the label leaves to the table."""
        return f"{self.target}, temperature {self.sampling.temperature:g}"

    @property
    def label(self) -> str:
        """Methods and the knobs that are not at their defaults, for tables and pictures."""
        if self.plain:
            return "plain"
        of = f" of {self.draft}" if self.draft else ""
        of += f" on {self.draft_device}" if self.draft_device else ""
        parts = [_worded("drafter", self.drafter) + of]
        parts += [_worded("verifier", self.verifier), _worded("policy", self.policy)]
        if self.schedule.name != "sequential":
            parts.append(_worded("schedule", self.schedule))
        return ", ".join(parts)

    def make(self, family: str) -> Any:
        """The instance of one family."""
        said = getattr(self, family)
        return make_method(family, said.name, **said.knobs)


def _worded(family: str, said: Method) -> str:
    card = make_method(family, said.name).card
    changed = [f"{k.name}={said.knobs[k.name]}" for k in card.knobs if _differs(k, said)]
    return f"{said.name}({', '.join(changed)})" if changed else said.name


def _differs(knob: Any, said: Method) -> bool:
    return knob.name in said.knobs and said.knobs[knob.name] != knob.default


@dataclass(frozen=True)
class Refusal:
    """A combination that cannot run, and why."""

    label: str
    reason: str
    cell: str = ""  # its id, where it got as far as that


@dataclass(frozen=True)
class Grid:
    """Everything to compare. Methods are names or instances; each axis is a tuple.

    Args:
        prompts: what is continued.
        targets, drafts: checkpoints; a draft stands in the cells whose methods need one.
        draft_devices: where drafts stand, each a cell of its own; none = with the target.
        samplings: temperatures and cuts; their seeds are not used (``setting.seed`` is).
        knobs: ``("policy.depth", (2, 4))`` or by a method's name, ``("token_recycling.k", (4,))``;
            an axis applies to the methods that have the knob.
        extra: further cells, e.g. of presets; they get their own baseline.
        repeats: how often each cell meets each prompt.

    Raises:
        UnknownMethod, BadInput: an axis that is empty or names nothing.
        BadKnob: a knob that no method of the grid has, or a value that none of them takes.
    """

    prompts: PromptSet
    targets: tuple[str, ...] = ("zoo:target",)
    drafts: tuple[str, ...] = ("zoo:draft",)
    draft_devices: tuple[str, ...] = ()
    drafters: tuple[Any, ...] = ("token_recycling",)
    verifiers: tuple[Any, ...] = ("exact_match",)
    policies: tuple[Any, ...] = ("fixed",)
    schedules: tuple[Any, ...] = ("sequential",)
    samplings: tuple[Sampling, ...] = (Sampling(),)
    knobs: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    extra: tuple[Cell, ...] = ()
    repeats: int = 3
    setting: Setting = field(default_factory=Setting)

    def __post_init__(self) -> None:
        for name in ("targets", "drafters", "verifiers", "policies", "schedules", "samplings"):
            if not getattr(self, name):
                raise BadInput(f"{name} is empty; name at least one")
        if self.repeats < 1:
            raise BadInput(f"repeats={self.repeats}: must be 1 or more")
        self.expanded()

    def expanded(self) -> tuple[tuple[Cell, ...], tuple[Refusal, ...]]:
        """All cells, plain decoding first, and what cannot run."""
        axes, refused = self._variants()
        cells: dict[str, Cell] = {}
        for target, sampling in itertools.product(self.targets, self.samplings):
            plain = plain_cell(target, sampling)
            cells.setdefault(plain.id, plain)
            sampling = plain.sampling
            for combination in itertools.product(*(axes[family] for family in DECODING)):
                methods = dict(zip(DECODING, combination, strict=True))
                if methods["drafter"].name == "none":
                    continue
                for draft, device in self._drafts_for(methods):
                    cell = Cell(
                        target, draft or "", **methods, sampling=sampling, draft_device=device
                    )
                    if draft is None:
                        reason = "it needs a draft model; name one with drafts (--draft)"
                        refused.append(Refusal(f"{cell.label} ({cell.place})", reason, cell.id))
                    else:
                        cells.setdefault(cell.id, cell)
        for cell in self.extra:
            for one in (plain_cell(*cell.group), cell):
                cells.setdefault(one.id, one)
        unique = {(r.label, r.reason): r for r in refused}
        return tuple(cells.values()), tuple(unique.values())

    def to_json(self) -> dict[str, Any]:
        """What decides whether two sweeps are the same: cells, prompts, repeats and setting."""
        cells, _ = self.expanded()
        return {
            "cells": {cell.id: cell.to_json() for cell in cells},
            "prompts": self.prompts.describe(),
            "repeats": self.repeats,
            "setting": dataclasses.asdict(self.setting),
        }

    def _drafts_for(self, methods: dict[str, Method]) -> Iterable[tuple[str | None, str]]:
        """Drafts that the combination is tried with, and where: none needed, or (None) none."""
        drafter, policy = (
            make_method(family, methods[family].name, **methods[family].knobs)
            for family in ("drafter", "policy")
        )
        needs = drafter.needs | getattr(policy, "needs", frozenset())
        if Need.DRAFT not in needs and Need.LEARNER not in needs:
            return (("", ""),)
        return itertools.product(self.drafts or (None,), self.draft_devices or ("",))

    def _variants(self) -> tuple[dict[str, list[Method]], list[Refusal]]:
        """Every method of each family with every setting of the knobs that apply to it."""
        named = {"drafter": self.drafters, "verifier": self.verifiers}
        named |= {"policy": self.policies, "schedule": self.schedules}
        chosen = {f: [make_method(f, spec) for spec in named[f]] for f in DECODING}
        self._check_knobs(chosen)
        axes: dict[str, list[Method]] = {}
        refused: list[Refusal] = []
        for family in DECODING:
            axes[family] = []
            for made in chosen[family]:
                for values in self._settings_of(family, made):
                    try:
                        axes[family].append(describe(dataclasses.replace(made, **values)))
                    except BadKnob as error:
                        refused.append(Refusal(f"{made.name}, {values}", str(error)))
            if not axes[family]:
                raise BadKnob(refused[-1].reason)
        return axes, refused

    def _settings_of(self, family: str, made: Any) -> list[dict[str, Any]]:
        has = {k.name for k in made.card.knobs}
        own = [
            (knob.partition(".")[2], values)
            for knob, values in self.knobs
            if knob.partition(".")[0] in (family, made.name) and knob.partition(".")[2] in has
        ]
        names = [name for name, _ in own]
        return [
            dict(zip(names, combination, strict=True))
            for combination in itertools.product(*(values for _, values in own))
        ]

    def _check_knobs(self, chosen: dict[str, list[Any]]) -> None:
        every = {
            f"{owner}.{k.name}"
            for family, made in chosen.items()
            for one in made
            for owner in (family, one.name)
            for k in one.card.knobs
        }
        for name, values in self.knobs:
            if name not in every:
                raise BadKnob(
                    f"knob {name!r}: no method of the grid has it.{closest(name, sorted(every))}"
                    f" Write FAMILY.KNOB or METHOD.KNOB; there are {', '.join(sorted(every))}"
                )
            if not values:
                raise BadKnob(f"knob {name!r} has no value; give one or more")


def plain_cell(target: str, sampling: Sampling) -> Cell:
    """Plain decoding of a target; a sampling's own seed is left out."""
    methods: dict[str, Any] = {family: described(family, PLAIN[family]) for family in DECODING}
    return Cell(target, "", **methods, sampling=dataclasses.replace(sampling, seed=0))


def cell_from_json(row: dict[str, Any]) -> Cell:
    """The cell that :meth:`Cell.to_json` described, its methods checked anew.

    Raises:
        WorkbenchError: a method or knob that this version does not have; LookupError or
        TypeError: not a cell at all.
    """
    methods = {}
    for family in DECODING:
        made = make_method(family, str(row[family]["name"]), **row[family]["knobs"])
        methods[family] = describe(made)
    sampling = Sampling(**row["sampling"])
    device = str(row.get("draft_device", ""))
    return Cell(
        str(row["target"]), str(row["draft"]), **methods, sampling=sampling, draft_device=device
    )


def described(family: str, spec: Any) -> Method:
    """Name and knobs of a method given by name or instance."""
    return describe(make_method(family, spec))
