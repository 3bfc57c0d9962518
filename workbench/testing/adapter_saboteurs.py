"""Adapters that are wrong on purpose, one classic mistake each; the suite must catch them all.

None is registered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from workbench.core.adapter import TargetShape
from workbench.core.method import MethodCard
from workbench.models.adapter_forms import peft_config
from workbench.models.adapting import Adapters

TARGETS = ["q_proj", "v_proj"]


class WrongAdapter:
    """A LoRA with something wrong about it."""

    family = "adapter"
    name = ""
    zero_init = True
    linear = True
    card: MethodCard

    def __init_subclass__(cls) -> None:
        title = (cls.__doc__ or "").strip().split(".")[0]
        cls.card = MethodCard("adapter", cls.name, title, None, cls, ())

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        return peft_config("LORA", r=2, lora_alpha=4, target_modules=TARGETS)

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        return sum(2 * (s.d_in + s.d_out) for s in shapes if s.leaf in TARGETS)


class Honest(WrongAdapter):
    """The same adapter without a mistake."""

    name = "honest"


class StartsElsewhere(WrongAdapter):
    """It claims to start as the base, but its B is not zero."""

    name = "starts_elsewhere"

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        return peft_config("LORA", r=2, target_modules=TARGETS, init_lora_weights=False)


class MiscountsItself(WrongAdapter):
    """Its formula forgets one of the two thin matrices."""

    name = "miscounts_itself"

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        return sum(2 * s.d_in for s in shapes if s.leaf in TARGETS)


class ClaimsAConstantChange(WrongAdapter):
    """A mixture that says it can be merged."""

    name = "claims_a_constant_change"

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        return peft_config("MOLA", r=2, experts=[3], target_modules=TARGETS)


class LeaksGradient(Adapters):
    """Training the adapter trains a norm of the base as well."""

    @contextlib.contextmanager
    def train(self, name: str) -> Iterator[None]:
        with super().train(name):
            self.model.network.model.norm.weight.requires_grad_(True)
            yield


class StaysOn(Adapters):
    """Taking an adapter off only switches it off: its layers stay in the network."""

    def detach(self, name: str | None = None) -> None:
        self.set_active([])


class RoundsTheWeights(Adapters):
    """It is merged and taken out again by subtraction, which is not exact."""

    def detach(self, name: str | None = None) -> None:
        with torch.no_grad():
            for _, layer in self.layers(self.names[0]):
                weight = layer.get_base_layer().weight
                change = 1e9 * torch.ones_like(weight) / 3
                weight.add_(change).sub_(change)
        super().detach(name)


class ForgetsStrength(Adapters):
    """Strength 0 leaves a thousandth of the adapter."""

    def set_strength(self, name: str, strength: float, layers: Any = None) -> None:
        super().set_strength(name, max(strength, 1e-3), layers)


WRONG_METHODS = (
    (StartsElsewhere, "check_zero_init"),
    (MiscountsItself, "check_parameter_count"),
    (ClaimsAConstantChange, "check_merged"),
)
WRONG_HANDLING = (
    (LeaksGradient, "check_gradient"),
    (StaysOn, "check_removal"),
    (RoundsTheWeights, "check_removal"),
    (ForgetsStrength, "check_disabled"),
)
