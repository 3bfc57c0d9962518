"""What a tuner may choose: drafters, policies and their knobs, within bounds, on some prompts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from workbench.bench.datasets import PromptSet
from workbench.bench.grid import Cell, Setting, described
from workbench.core.decoding import Need
from workbench.core.errors import BadInput, BadKnob
from workbench.core.method import Knob, find_method
from workbench.core.sampling import Sampling
from workbench.engine.run import describe


@dataclass(frozen=True)
class Search:
    """What may be chosen, and on what it is tried.

    Args:
        knobs: further knobs to tune, by method: ``token_recycling.k``.
        most: upper ends for the knobs of that name, where the method's own are far off.
        trials: configurations tried.
        finalists: of them, measured again at the end.
        repeats: of every prompt, then.
        draft_device: where the draft stands; "" = with the target.
    """

    prompts: PromptSet
    target: str = "zoo:target"
    draft: str = "zoo:draft"
    drafters: tuple[str, ...] = ("token_recycling", "prompt_lookup", "draft_model")
    policies: tuple[str, ...] = ("fixed",)
    knobs: tuple[str, ...] = ()
    most: dict[str, int] = field(default_factory=lambda: {"nodes": 32, "depth": 8, "width": 8})
    sampling: Sampling = field(default_factory=Sampling)
    setting: Setting = field(default_factory=Setting)
    trials: int = 30
    finalists: int = 3
    repeats: int = 3
    draft_device: str = ""

    def __post_init__(self) -> None:
        for name in ("trials", "finalists", "repeats"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name}={getattr(self, name)}: must be 1 or more")
        for family, names in (("drafter", self.drafters), ("policy", self.policies)):
            if not names:
                raise BadInput(f"{family}: name at least one to choose from")
            for name in names:
                find_method(family, name)
        known = {f"{n}.{k.name}" for n in self.drafters for k in find_method("drafter", n).knobs}
        for name in self.knobs:
            if name not in known:
                raise BadKnob(
                    f"knob {name!r}: of the drafters there are {', '.join(sorted(known))}"
                )

    def to_json(self) -> dict[str, Any]:
        """What must be the same for trials to be compared; there may always be more of them."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del told["trials"], told["finalists"], told["repeats"]
        if not self.draft_device:  # searches of before there was a choice go on
            del told["draft_device"]
        told["prompts"], told["setting"] = self.prompts.describe(), vars(self.setting)
        return json.loads(json.dumps({**told, "sampling": vars(self.sampling)}))

    def cell(self, trial: Any) -> Cell:
        """The configuration that the trial suggests.

        Raises:
            BadKnob: knobs that do not go together.
        """
        chosen = {
            family: trial.suggest_categorical(family, list(names))
            for family, names in (("drafter", self.drafters), ("policy", self.policies))
        }
        made: dict[str, Any] = {}
        for family, name in chosen.items():
            card = find_method(family, name)
            wanted = [
                k for k in card.knobs if family == "policy" or f"{name}.{k.name}" in self.knobs
            ]
            made[family] = card.make(**{k.name: self._suggested(trial, name, k) for k in wanted})
        rule = "exact_match" if self.sampling.greedy else "multi_round"
        needs = made["drafter"].needs | getattr(made["policy"], "needs", frozenset())
        drafts = bool(needs & {Need.DRAFT, Need.LEARNER})
        return Cell(
            self.target,
            self.draft if drafts else "",
            describe(made["drafter"]),
            described("verifier", rule),
            describe(made["policy"]),
            described("schedule", "sequential"),
            dataclasses.replace(self.sampling, seed=0),
            self.draft_device if drafts else "",
        )

    def _suggested(self, trial: Any, owner: str, knob: Knob) -> Any:
        name = f"{owner}.{knob.name}"
        if knob.kind in ("choice", "method") and knob.options:
            return trial.suggest_categorical(name, list(knob.options))
        if knob.kind == "bool":
            return trial.suggest_categorical(name, [False, True])
        if knob.low is None or knob.high is None or knob.kind not in ("int", "float"):
            return knob.default
        if knob.kind == "float":
            return trial.suggest_float(name, knob.low, knob.high)
        high = min(int(knob.high), self.most.get(knob.name, int(knob.high)))
        return trial.suggest_int(name, int(knob.low), high, log=knob.low > 0 and high >= 16)

    def first_guesses(self) -> list[dict[str, Any]]:
        """Every drafter with the first policy's defaults, so that no search ends below them."""
        card, guesses = find_method("policy", self.policies[0]), []
        for drafter in self.drafters:
            guess: dict[str, Any] = {"drafter": drafter, "policy": card.name}
            for k in card.knobs:
                most = self.most.get(k.name) if k.kind == "int" else None
                guess[f"{card.name}.{k.name}"] = min(k.default, most) if most else k.default
            guesses.append(guess)
        return guesses
